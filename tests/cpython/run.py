"""Runs CPython's own tests of `multiprocessing` on this package: see README.md beside this file."""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ON_PATH = HERE / "on_path"
METHODS = ("fork", "spawn", "forkserver")
ORDER = (
    "passed",
    "skipped",
    "listed",
    "started",
    "failed",
)  # of the outcomes of a test, the worst last
END_LIMIT = 120.0  # seconds for the helper processes of a class to end after it
LAST_LINES = 200  # of what a class has printed, for a failure
JOBS = 2 * (os.cpu_count() or 1)  # classes at a time, which wait most of their time


@dataclasses.dataclass(frozen=True)
class Entry:
    """A class of the suite, to be run under one start method."""

    method: str
    module: str
    name: str
    since: tuple[int, ...]


@dataclasses.dataclass
class Skip:
    """A line of the skip list."""

    test: str
    methods: tuple[str, ...]
    since: tuple[int, ...]
    reason: str
    stale: list[str] = dataclasses.field(default_factory=list)
    met: bool = False


@dataclasses.dataclass
class Outcome:
    kind: str
    text: str = ""


@dataclasses.dataclass
class Report:
    """What became of the tests of an entry, and what there is to say of it."""

    outcomes: dict[str, Outcome]
    text: str


class Totals(collections.Counter):
    """How many tests went which way."""

    def __str__(self):
        return (
            f"{self['passed']} passed, {self['failed']} failed, "
            f"{self['skipped'] + self['listed']} skipped"
        )


def read_scope(table):
    """The entries of the scope."""
    since = table.get("since", {})
    entries = []
    for method in METHODS:
        names = [
            *((module, name) for module, by in table["modules"].items() for name in by[method]),
            *((f"suite_{method}", name) for name in table["suite"]),
        ]
        for module, name in names:
            entries.append(Entry(method, module, name, version(since.get(name, "0"))))
    return entries


def version(text):
    return tuple(int(part) for part in text.split("."))


def read_skips(path):
    skips = []
    for test, line in tomllib.loads(path.read_text()).items():
        fields = {"reason": line} if isinstance(line, str) else line
        methods = tuple(fields.get("methods", METHODS))
        if not fields.get("reason") or fields.keys() - {"methods", "since", "reason"}:
            raise ValueError(f"{path.name}: {test}: expected a reason and, if any, methods, since")
        if set(methods) - set(METHODS):
            raise ValueError(f"{path.name}: {test}: the start methods are {', '.join(METHODS)}")
        skips.append(Skip(test, methods, version(fields.get("since", "0")), fields["reason"]))
    return skips


class Runner:
    def __init__(self, options, folder):
        self.options = options
        self.folder = pathlib.Path(folder)
        scope = tomllib.loads((HERE / "scope.toml").read_text())
        self.entries = read_scope(scope)
        self.limit = float(scope["limit"])
        self.limit_on_the_list = float(scope["limit_on_the_list"])
        self.expected = scope["expected"]
        self.optional = scope.get("optional", [])
        whole = options.all or options.under == "original"
        self.skips = [] if whole else read_skips(HERE / "skips.toml")
        self.environment = environment(options.under)
        self.runs = itertools.count()

    def run(self):
        """Run all, print all, and say whether that was a success."""
        began = time.monotonic()
        totals = Totals()
        methods = self.options.method or METHODS
        threads = concurrent.futures.ThreadPoolExecutor(self.options.jobs)
        try:
            # All at once, so that no method waits for the last class of another.
            begun = {
                method: [threads.submit(self.run_entry, entry) for entry in self.wanted(method)]
                for method in methods
            }
            for method in methods:
                totals.update(self.follow_method(method, begun[method]))
        finally:
            threads.shutdown(cancel_futures=True)  # what has not begun, after an interrupt
        for skip in self.skips:
            for line in skip.stale:
                print(f"stale line in skips.toml: {line}")
            if not skip.met and self.should_have_met(skip):
                print(f"stale line in skips.toml: {skip.test}: there is no such test")
        print(f"{time.monotonic() - began:.0f} s, up to {self.options.jobs} classes at a time")
        print(totals)
        return totals["passed"] > 0 and totals["failed"] == 0

    def follow_method(self, method, entries):
        """Print what becomes of the entries of a method, in their order, and return the totals."""
        print(f"== {method}, {self.options.under}, CPython {sys.version.split()[0]}")
        totals = Totals()
        reasons = collections.Counter()
        for future in entries:
            report = future.result()
            print(report.text, flush=True)
            totals.update(outcome.kind for outcome in report.outcomes.values())
            for test, outcome in report.outcomes.items():
                if outcome.kind == "listed":
                    reasons[f"  our list: {test}: {outcome.text}"] += 1
                elif outcome.kind == "skipped":
                    reasons[f"  the suite itself: {outcome.text}"] += 1
        for module in filter(lambda module: not is_installed(module), self.optional):
            print(f"  not installed with this interpreter: {module}")
        for reason, count in sorted(reasons.items()):
            print(f"{reason} ({count})" if count > 1 else reason)
        print(
            f"{method}: {totals.total()} tests: {totals['passed']} passed, "
            f"{totals['failed']} failed, {totals['listed']} skipped by our list, "
            f"{totals['skipped']} skipped by the suite"
        )
        return totals

    def wanted(self, method):
        """The entries of a method that this interpreter has and the command line asks for."""
        return [
            entry
            for entry in self.entries
            if entry.method == method
            and entry.since <= sys.version_info
            and (entry.module not in self.optional or is_installed(entry.module))
            and self.asked_for(entry)
        ]

    def should_have_met(self, skip):
        """Say whether the test of a line is among those of the classes that were run."""
        if self.options.tests or skip.since > sys.version_info:
            return False
        cls = skip.test.partition(".")[0]
        methods = set(self.options.method or METHODS) & set(skip.methods)
        return any(answers(entry, cls) for method in methods for entry in self.wanted(method))

    def asked_for(self, entry):
        """Say whether the command line leaves anything of the entry to be run."""
        patterns = [pattern.partition(".")[0] for pattern in self.options.tests]
        return not patterns or any(answers(entry, pattern) for pattern in patterns)

    def run_entry(self, entry):
        skips = {skip.test: skip for skip in self.skips if entry.method in skip.methods}
        began = time.monotonic()
        outcomes, log = self.run_class(entry, self.options.tests or ["*"], list(skips), self.limit)
        for test, outcome in outcomes.items():
            if outcome.kind == "listed":
                outcome.text = skips[test].reason
                self.look_whether_stale(entry, skips[test])
        totals = Totals(outcome.kind for outcome in outcomes.values())
        verdict = "FAILED" if totals["failed"] else "ok"
        seconds = time.monotonic() - began
        lines = [f"{verdict:<6} {entry.name:<28} {totals}, {seconds:.1f} s"]
        if totals["failed"]:
            lines += failure(entry, outcomes, log)
        elif self.options.verbose:
            lines.append(log)
        return Report(outcomes, "\n".join(lines))

    def look_whether_stale(self, entry, skip):
        """Run by itself, so that it can do no harm to others, a test that need not pass."""
        skip.met = True
        outcomes, _ = self.run_class(entry, [skip.test], [], self.limit_on_the_list)
        if {outcome.kind for outcome in outcomes.values()} == {"passed"}:
            skip.stale.append(f"{skip.test}: it passes under {entry.method}")

    def run_class(self, entry, only, skip, limit):
        """Run tests of a class in a process; return what became of each, and what was printed."""
        folder = self.folder / str(next(self.runs))
        folder.mkdir()
        record, log = folder / "record", folder / "log"
        command = [
            sys.executable,
            str(HERE / "child.py"),
            *(entry.module, entry.name, str(record)),
            *("--only", *only),
            *("--skip", *skip),
        ]
        (folder / "work").mkdir()
        with log.open("wb") as output:
            problem = watch(command, limit, folder / "work", self.environment, output)
        outcomes = read_record(record)
        if not outcomes and not problem:
            problem = "no test ran"
        begun = [outcome for outcome in outcomes.values() if outcome.kind == "started"]
        for outcome in begun:
            outcome.kind = "failed"
            outcome.text = f"it did not end: {problem or 'the process that ran it did'}"
        for outcome in outcomes.values():
            if outcome.kind == "skipped" and any(word in outcome.text for word in self.expected):
                outcome.kind, outcome.text = "failed", f"the suite skips it: {outcome.text}"
        if problem and not begun:
            outcomes[entry.name] = Outcome("failed", problem)
        return outcomes, log.read_text(errors="replace")


def answers(entry, name):
    """Say whether an entry stands for the class of that name."""
    # The suite makes WithProcessesTestQueue of _TestQueue.
    return name == entry.name or (entry.name[0] == "_" and name.endswith(entry.name[1:]))


def is_installed(module):
    """Say whether the interpreter has a module of its test suite."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def environment(under):
    """The environment variables for processes of the suite."""
    spec = importlib.util.find_spec("procession")
    if under == "procession" and spec is None:
        sys.exit("the package is not installed for this interpreter: run `make build`")
    path = [str(ON_PATH)]
    if spec is not None:
        path.append(str(pathlib.Path(spec.origin).parent.parent))
    variables = dict(os.environ, PYTHONPATH=os.pathsep.join(path), PYTHONFAULTHANDLER="1")
    variables.pop("PROCESSION_CPYTHON_SUITE", None)
    if under == "procession":
        variables["PROCESSION_CPYTHON_SUITE"] = "1"
    return variables


def watch(command, limit, folder, variables, output):
    """Run the command and all that it starts; return what is wrong with how that ended, or ''."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    problem = ""
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        problem = f"it was still running after {limit:.0f} s; the stacks are below"
        show_stacks(process.pid)
    finally:
        if not problem and not wait_until(lambda: not members(process.pid)):
            left = ", ".join(f"{number} ({line})" for number, line in members(process.pid).items())
            problem = f"it left processes running: {left}"
        signal_group(process.pid, signal.SIGKILL)
        process.wait()
    if not problem and process.returncode:
        problem = f"the process that runs the tests ended with {process.returncode}"
    return problem


def signal_group(group, number):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def show_stacks(group):
    """Let each process of the group show the stacks of its threads, and end."""
    # One after the other, so that they do not write into one another's lines; and stopped, so that
    # none goes on because another has ended.
    signal_group(group, signal.SIGSTOP)
    for number in members(group):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGABRT)
            os.kill(number, signal.SIGCONT)
        wait_until(lambda number=number: number not in members(group))


def wait_until(condition):
    """Wait until the condition is true, and say whether it became so in time."""
    end = time.monotonic() + END_LIMIT
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def members(group):
    """The running processes of a group, by number, with the command line of each.

    Those that only wait to be reaped do not count, nor those whose memory is gone already.
    """
    found = {}
    for path in sorted(pathlib.Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):
            state, _, number = (path / "stat").read_text().rpartition(") ")[2].split()[:3]
            if int(number) == group and state not in "ZX":
                line = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                if line:
                    found[int(path.name)] = line.decode(errors="replace").strip()
    return found


def read_record(path):
    """What became of each test, by the worst that was said of it."""
    outcomes = {}
    lines = path.read_text().splitlines() if path.exists() else []
    for line in map(json.loads, lines):
        old = outcomes.get(line["test"])
        kind, text = line["outcome"], line["text"]
        if old is None or old.kind == "started":
            outcomes[line["test"]] = Outcome(kind, text)
        elif kind == old.kind == "failed":
            old.text += text
        elif ORDER.index(kind) > ORDER.index(old.kind):
            outcomes[line["test"]] = Outcome(kind, text)
    return outcomes


def failure(entry, outcomes, log):
    """The lines that tell what has failed in an entry."""
    lines = []
    for test, outcome in outcomes.items():
        if outcome.kind == "failed":
            lines.append(f"-- {entry.method}: {test}")
            lines += (f"   {line}" for line in outcome.text.rstrip().split("\n"))
    printed = log.rstrip().splitlines()[-LAST_LINES:]
    if printed:
        lines.append(f"-- {entry.method}: {entry.name}: the end of what it printed")
        lines += (f"   {line}" for line in printed)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", action="append", choices=METHODS, help="default: each of them")
    parser.add_argument("--under", choices=("procession", "original"), default="procession")
    parser.add_argument("--all", action="store_true", help="run what is on the skip list, too")
    parser.add_argument("--jobs", type=int, default=JOBS, help="classes at a time; now %(default)s")
    parser.add_argument("--verbose", action="store_true", help="show what the tests print")
    parser.add_argument("tests", nargs="*", metavar="CLASS[.TEST]", help="default: all in scope")
    options = parser.parse_args()
    if importlib.util.find_spec("test") is None or (
        importlib.util.find_spec("test._test_multiprocessing") is None
    ):
        print(f"{sys.executable} has no test suite of its own: install its `test` package")
        print(Totals(failed=1))
        return 1
    # A shell has what it runs in the background ignore it, and the tests would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="procession-cpython-") as folder:
        return 0 if Runner(options, folder).run() else 1


if __name__ == "__main__":
    sys.exit(main())
