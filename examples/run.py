"""Run every example, so that none rots: `make examples`.

A Python example runs under the standard library and under `procession`, a Rust example as built.
"""

import argparse
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TEXT = HERE.parent / "python"  # some text files
ARGUMENTS = {"wordcount": [str(TEXT), "--workers", "2"]}  # none for an example not named here
LIMIT = 120  # seconds; only a deadlock takes this long


def commands(rust):
    for script in sorted((HERE / "python").glob("*.py")):
        arguments = ARGUMENTS.get(script.stem, [])
        yield f"{script.name}, multiprocessing", [sys.executable, script, *arguments]
        yield f"{script.name}, procession", [sys.executable, "-m", "procession", script, *arguments]
    sources = HERE.parent / "crates" / "procession" / "examples"
    for source in sorted(sources.glob("*.rs")):
        yield source.name, [rust / source.stem, *ARGUMENTS.get(source.stem, [])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rust", required=True, type=pathlib.Path, help="folder of built examples")
    options = parser.parse_args()
    passed, failed = 0, 0
    for name, command in commands(options.rust):
        done = subprocess.run(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        passed, failed = passed + (done.returncode == 0), failed + (done.returncode != 0)
        print(f"{'ok' if done.returncode == 0 else 'FAILED':<7} {name}")
        if done.returncode != 0:
            print(done.stdout)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
