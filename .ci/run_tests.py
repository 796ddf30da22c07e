"""Run cargo's test programs some at a time, and the documentation tests beside them.

    run_tests.py JOBS CARGO_ARGUMENT...

As `cargo test --no-fail-fast` does, but that runs one program after the other, and most of them
wait for processes much of their time. A program is run as cargo runs it, in the folder of its
package, and what it said is printed in one piece when it has ended. Fails if one of them fails.
"""

import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

CARGO = os.environ.get("CARGO", "cargo")


def build(arguments):
    """Build the test programs; yield the source of each, its own path and its folder."""
    form = "--message-format=json-render-diagnostics"
    command = [CARGO, "test", "--no-run", form, *arguments]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        sys.exit(built.returncode)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["executable"]:
            folder = pathlib.Path(message["manifest_path"]).parent
            source = pathlib.Path(message["target"]["src_path"]).relative_to(folder)
            # An example is built with the tests and is none, unless its manifest says so.
            if message["profile"]["test"]:
                yield source, message["executable"], folder


def run(title, command, folder, environment):
    """Run one command, print what it said, and return whether it succeeded."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    end = f"error: {title} FAILED with status {done.returncode}\n" if done.returncode else ""
    text = f"     Running {title}\n".encode() + done.stdout + end.encode()
    sys.stdout.buffer.write(text)  # in one piece, whoever writes meanwhile
    sys.stdout.buffer.flush()
    return done.returncode == 0


def libraries():
    """Where a test of a procedural macro finds the compiler's own libraries."""
    command = [os.environ.get("RUSTC", "rustc"), "--print", "target-libdir"]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return found.stdout.strip()


def main():
    jobs, arguments = int(sys.argv[1]), sys.argv[2:]
    programs = list(build(arguments))
    path = [libraries(), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(path)}
    documentation = [CARGO, "test", "--no-fail-fast", "--doc", *arguments]
    with ThreadPoolExecutor(jobs) as pool:
        # What takes longest comes first.
        runs = [pool.submit(run, "documentation tests", documentation, None, None)]
        for source, program, folder in sorted(programs, key=lambda one: one[0].parts[0] != "src"):
            title = f"{source} ({program})"
            runs.append(pool.submit(run, title, [program], folder, environment))
    failed = sum(not one.result() for one in runs)
    if failed:
        print(f"error: {failed} of {len(runs)} test programs FAILED")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
