"""Runs the gate `cpython` with every CPython from 3.11 on that is found, one of each 3.x.

They are looked for in PATH and, where there is pyenv, among its versions. Of several of one 3.x,
the newest that has a test suite is taken.
"""

import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OLDEST = (3, 11)
NAME = re.compile(r"python3\.\d+")
PROBE = """
import importlib.util, json, sys
suite = importlib.util.find_spec("test") and importlib.util.find_spec("test._test_multiprocessing")
print(json.dumps([sys.implementation.name, sys.version_info[:3], bool(suite)]))
"""
LAST_LINE = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")


def candidates():
    """Paths of all that is named like an interpreter."""
    folders = [pathlib.Path(folder) for folder in os.get_exec_path()]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout
        folders += pathlib.Path(root.strip()).glob("versions/*/bin")
    for folder in filter(pathlib.Path.is_dir, folders):
        yield from (path for path in folder.iterdir() if NAME.fullmatch(path.name))


def probe(path):
    """The version of the CPython at `path` and whether it has its suite; `None` if it is none."""
    done = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, check=False)
    if done.returncode:
        return None  # one of pyenv's that is not switched on, say
    implementation, version, suite = json.loads(done.stdout)
    version = tuple(version)
    return (suite, version) if implementation == "cpython" and version >= OLDEST else None


def found():
    """For each 3.x, whether it has a suite, its version and its path."""
    best = {}
    for path in candidates():
        seen = probe(path)
        if seen is not None:
            minor = seen[1][:2]
            best[minor] = max(best.get(minor, (False,)), (*seen, str(path)))
    return [best[minor] for minor in sorted(best)]


def run(version, path):
    """Run the gate; return how many tests passed, failed and were skipped."""
    environment = f".venv{version[0]}{version[1]}"
    command = [os.environ.get("MAKE", "make"), "--no-print-directory", "cpython"]
    process = subprocess.Popen(
        [*command, f"PYTHON={path}", f"VENV={environment}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    match = None
    with process:
        for line in process.stdout:
            print(line, end="", flush=True)
            match = LAST_LINE.fullmatch(line.strip()) or match
    passed, failed, skipped = map(int, match.groups()) if match else (0, 0, 0)
    return passed, failed or int(process.returncode != 0), skipped


def main():
    totals = collections.Counter()
    report = []
    for suite, version, path in found():
        name = f"CPython {'.'.join(map(str, version))}, {path}"
        if not suite:
            # One of several may lack it, but CI installs those that have it.
            totals["failed"] += os.environ.get("CI") == "true"
            report.append(f"{name}: it comes without its `test` package")
            continue
        passed, failed, skipped = run(version, path)
        totals.update(passed=passed, failed=failed, skipped=skipped)
        report.append(f"{name}: {passed} passed, {failed} failed, {skipped} skipped")
    print("== all interpreters")
    print("\n".join(report))
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")
    return 0 if totals["passed"] and not totals["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
