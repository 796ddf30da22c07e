"""Run every example, so that none rots: `make examples`.

A Python example runs under the standard library and under `procession`, a Rust example as built.
A client in Rust of a server in Python runs once with the server under each.
"""

import argparse
import contextlib
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TEXT = HERE.parent / "python"  # some text files
ARGUMENTS = {"wordcount": [str(TEXT), "--workers", "2"]}  # none for an example not named here
SERVERS = {"statistics_client": "statistics_server"}  # a server prints what its client is told
LIMIT = 120  # seconds; only a deadlock takes this long


def in_python(name, arguments):
    """What the script is run by, and the commands for that."""
    script = HERE / "python" / f"{name}.py"
    yield "multiprocessing", [sys.executable, script, *arguments]
    yield "procession", [sys.executable, "-m", "procession", script, *arguments]


def commands(rust):
    """The title of each run, the command of the server if it needs one, and its own."""
    for script in sorted((HERE / "python").glob("*.py")):
        if script.stem not in SERVERS.values():
            for by, command in in_python(script.stem, ARGUMENTS.get(script.stem, [])):
                yield f"{script.name}, {by}", None, command
    sources = HERE.parent / "crates" / "procession" / "examples"
    for source in sorted(sources.glob("*.rs")):
        command = [rust / source.stem, *ARGUMENTS.get(source.stem, [])]
        if source.stem not in SERVERS:
            yield source.name, None, command
            continue
        for by, server in in_python(SERVERS[source.stem], []):
            yield f"{source.name}, its server by {by}", server, command


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
