"""Run every example, so that none rots: `make examples`.

A Python example runs under the standard library and under `procession`, a Rust example as built.
A client runs once with each of its servers: in Rust as in Python, and in Python under each.
"""

import argparse
import contextlib
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE.parent / "crates" / "procession" / "examples"
TEXT = HERE.parent / "python"  # some text files
ARGUMENTS = {"wordcount": [str(TEXT), "--workers", "2"]}  # none for an example not named here
# A server prints what its client is told.
SERVERS = {"statistics_client": "statistics_server", "task_worker": "task_master"}
LIMIT = 120  # seconds; only a deadlock takes this long


def in_python(name):
    """What a script is run by, and the commands for that; nothing if there is no such script."""
    script = HERE / "python" / f"{name}.py"
    if script.exists():
        arguments = ARGUMENTS.get(name, [])
        yield f"{script.name} by multiprocessing", [sys.executable, script, *arguments]
        package = [sys.executable, "-m", "procession"]
        yield f"{script.name} by procession", [*package, script, *arguments]


def in_rust(name, rust):
    """The same for a program in Rust."""
    source = SOURCES / f"{name}.rs"
    if source.exists():
        yield source.name, [rust / name, *ARGUMENTS.get(name, [])]


def commands(rust):
    """The title of each run, the command of the server if it needs one, and its own."""
    names = {script.stem for folder in (HERE / "python", SOURCES) for script in folder.iterdir()}
    for name in sorted(names - set(SERVERS.values())):
        for title, command in [*in_python(name), *in_rust(name, rust)]:
            if name not in SERVERS:
                yield title, None, command
                continue
            server = SERVERS[name]
            for by, server_command in [*in_python(server), *in_rust(server, rust)]:
                yield f"{title}, its server {by}", server_command, command


@contextlib.contextmanager
def running(server):
    """Run a server meanwhile, if there is one; give the first line that it prints."""
    if server is None:
        yield []
        return
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield [process.stdout.readline().strip()]
            if process.wait(LIMIT):
                raise subprocess.CalledProcessError(process.returncode, server)
        finally:
            process.kill()


def run(server, command):
    """Whether all went well, and what the command printed."""
    with running(server) as told:
        done = subprocess.run(
            [str(part) for part in [*command, *told]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    return done.returncode == 0, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rust", required=True, type=pathlib.Path, help="folder of built examples")
    options = parser.parse_args()
    passed, failed = 0, 0
    for name, server, command in commands(options.rust):
        well, output = run(server, command)
        passed, failed = passed + well, failed + (not well)
        print(f"{'ok' if well else 'FAILED':<7} {name}")
        if not well:
            print(output)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
