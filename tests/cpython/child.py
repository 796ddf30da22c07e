"""Runs the tests of one class, and writes down how each went. Started by `run.py`."""

import argparse
import faulthandler
import fnmatch
import functools
import json
import os
import resource
import subprocess
import sys
import unittest

TYPES = ("Processes", "Threads", "Manager")


class Record(unittest.TestResult):
    """Appends one line of JSON to a file when a test begins, and one for each thing said of it.

    A process that a test forks has a copy of it, which writes nothing.
    """

    def __init__(self, path):
        super().__init__()
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        self._owner = os.getpid()

    def startTest(self, test):  # noqa: N802
        super().startTest(test)
        self.write(name_of(test), "started")

    def addSuccess(self, test):  # noqa: N802
        super().addSuccess(test)
        self.write(name_of(test), "passed")

    def addFailure(self, test, err):  # noqa: N802
        super().addFailure(test, err)
        self.write(name_of(test), "failed", self.failures[-1][1])

    def addError(self, test, err):  # noqa: N802
        super().addError(test, err)
        self.write(name_of(test), "failed", self.errors[-1][1])

    def addSubTest(self, test, subtest, err):  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.write(name_of(test), "failed", f"{subtest}\n{self._exc_info_to_string(err, test)}")

    def addSkip(self, test, reason):  # noqa: N802
        super().addSkip(test, reason)
        # A module that cannot be set up has not been tested.
        refused = str(test).startswith("setUpModule")
        self.write(name_of(test), "failed" if refused else "skipped", reason)

    def addExpectedFailure(self, test, err):  # noqa: N802
        super().addExpectedFailure(test, err)
        self.write(name_of(test), "passed")

    def addUnexpectedSuccess(self, test):  # noqa: N802
        super().addUnexpectedSuccess(test)
        self.write(name_of(test), "failed", "it passed, which its author did not expect")

    def write(self, name, outcome, text=""):
        if os.getpid() == self._owner:
            line = {"test": name, "outcome": outcome, "text": text}
            os.write(self._fd, json.dumps(line).encode() + b"\n")


def name_of(test):
    """`Class.method`; for the set-up of a class or module, which is no test, what unittest says."""
    test = getattr(test, "test_case", test)  # of a subtest
    method = getattr(test, "_testMethodName", None)
    return f"{type(test).__name__}.{method}" if method else str(test)


def find_tests(module_name, base):
    """The tests of the class `base`, or of what the suite has made of it."""
    module = __import__(module_name, fromlist=["*"])
    names = [base, *(f"With{kind}{base[1:]}" for kind in TYPES)]
    classes = [vars(module)[name] for name in names if name in vars(module)]
    loader = unittest.TestLoader()
    return [test for cls in classes for test in loader.loadTestsFromTestCase(cls)]


def reach_programs_without_environment():
    """Let programs that a test starts with `-E` or `-I` have our `sitecustomize` too."""
    from test.support import script_helper

    # What it adds such a flag to by itself, it leaves alone where the interpreter needs the
    # environment, as it does here.
    script_helper.interpreter_requires_environment = lambda: True
    original = subprocess.Popen.__init__

    @functools.wraps(original)
    def init(self, args, *rest, **options):
        original(self, with_site(args), *rest, **options)

    subprocess.Popen.__init__ = init


def with_site(args):
    """Return the command `args`, with a prefix to a program that ignores the environment."""
    if not isinstance(args, list | tuple) or "-c" not in args or args[0] != sys.executable:
        return args
    code = args.index("-c") + 1
    if not {"-E", "-I"} & set(args[:code]):
        return args
    path = os.environ["PYTHONPATH"].split(os.pathsep)
    prefix = f"import sys; sys.path[:0] = {path!r}; import sitecustomize\n"
    return [*args[:code], prefix + args[code], *args[code + 1 :]]


def chosen(name, base, patterns):
    """Say whether a pattern matches the test or its class, by any of their names in the suite."""
    cls, _, method = name.partition(".")
    names = (name, cls, f"{base}.{method}", base)
    return any(fnmatch.fnmatchcase(each, pattern) for each in names for pattern in patterns)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of the tests to run")
    parser.add_argument("--skip", nargs="*", default=[], help="names of tests not to run")
    parser.add_argument("module")
    parser.add_argument("base", help="name of the class")
    parser.add_argument("record", help="file to write to")
    options = parser.parse_args()
    faulthandler.enable()  # `run.py` ends a deadlock by SIGABRT, which then shows all stacks
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    record = Record(options.record)
    suite = unittest.TestSuite()
    for test in find_tests(options.module, options.base):
        name = name_of(test)
        if not chosen(name, options.base, options.only):
            continue
        if name in options.skip:
            record.write(name, "listed")
        else:
            suite.addTest(test)
    reach_programs_without_environment()
    suite.run(record)


if __name__ == "__main__":
    main()
