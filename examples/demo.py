"""Count the words of Python's standard library in five ways and compare: `make demo`.

The two examples, each with its worker processes and without, and the Python one under the standard
library's `multiprocessing` too. Fails if any table of words differs from the others, or if a
process or a name in `/dev/shm` is left.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import time

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE.parent / "target" / "demo" / "sources"
# Every process of the runs carries this in its environment, wherever its parent went.
MARK = ("PROCESSION_DEMO", str(os.getpid()))
SETTLE = 5.0  # seconds within which what was killed at the very end is gone


def copy_sources():
    """Copy the sources of the running Python's standard library; return how many files they are.

    Without the installed packages, which lie in the same folder, and without compiled files.
    """
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    shutil.rmtree(SOURCES, ignore_errors=True)

    def unwanted(folder, names):
        keep = {name for name in names if name.endswith(".py")}
        keep |= {name for name in names if (pathlib.Path(folder) / name).is_dir()}
        return set(names) - (keep - {"site-packages", "dist-packages", "__pycache__"})

    shutil.copytree(library, SOURCES, ignore=unwanted)
    return sum(path.is_file() for path in SOURCES.rglob("*"))


def commands(rust, workers):
    """Name each way to count, with the command for it."""
    script, folder = str(HERE / "python" / "wordcount.py"), str(SOURCES)
    with_workers = [folder, "--workers", str(workers)]
    return {
        "Python, sequential": [sys.executable, script, folder, "--sequential"],
        "Python, multiprocessing": [sys.executable, script, *with_workers],
        "Python, procession": [sys.executable, "-m", "procession", script, *with_workers],
        "Rust, sequential": [rust, folder, "--sequential"],
        "Rust, procession": [rust, *with_workers],
    }


def run(name, command):
    """Run one of them; return the seconds it took, its table, and its lines about the workers."""
    start = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | dict([MARK]), stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"demo: {name} failed with status {done.returncode}: {' '.join(command)}")
    table, _, workers = done.stdout.partition("\n\n")
    if not table or not workers:
        sys.exit(f"demo: {name} printed no table or no workers: {done.stdout!r}")
    return seconds, table, workers


def left_running():
    wanted = "=".join(MARK).encode()
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(f"{entry.name}: {(entry / 'cmdline').read_text()}")
        except OSError:  # no process, or gone
            continue
    return found


def names_in_shared_memory():
    folder = pathlib.Path("/dev/shm")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def leftovers(names_before):
    """Say what is still there, once what was about to vanish has done so."""
    deadline = time.monotonic() + SETTLE
    while True:
        left = [f"process {process}" for process in left_running()]
        left += [f"/dev/shm/{name}" for name in names_in_shared_memory() - names_before]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rust", required=True, help="the built Rust example")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3, help="the best time of these is shown")
    options = parser.parse_args()

    files = copy_sources()
    print(f"{files} files of {sysconfig.get_path('stdlib')}, {options.workers} workers")
    names_before = names_in_shared_memory()
    ways = commands(options.rust, options.workers)
    results = {name: [] for name in ways}
    for _ in range(options.rounds):  # in turn, so that what else the machine does hits all alike
        for name, command in ways.items():
            results[name].append(run(name, command))

    tables = {name: {table for _, table, _ in runs} for name, runs in results.items()}
    expected = tables["Python, sequential"]
    wrong = [name for name, found in tables.items() if found != expected or len(found) != 1]
    print("\n".join(sorted(expected)), end="\n\n")
    for name, runs in results.items():
        print(f"{name:<24} {min(seconds for seconds, _, _ in runs):6.2f} s")
    for name in ("Python, procession", "Rust, procession"):
        print(f"\n{name}:\n{results[name][-1][2].rstrip()}")
    for name in wrong:
        print(f"demo: the table of {name} differs:\n{sorted(tables[name])[-1]}", file=sys.stderr)
    left = leftovers(names_before)
    for what in left:
        print(f"demo: left behind: {what}", file=sys.stderr)
    return 1 if wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
