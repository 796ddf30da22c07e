"""Checks that what the suite is about to test is what it should test, in every kind of process.

Without this, a suite that fell back to the standard library would pass.
"""

import multiprocessing
import os
import subprocess
import sys
import unittest

from test.support.script_helper import assert_python_ok

EXPECTED = "procession" if "PROCESSION_CPYTHON_SUITE" in os.environ else "multiprocessing"
PROGRAM = "import multiprocessing; print(multiprocessing.Process.__module__.partition('.')[0])"


def answering():
    """The package that `multiprocessing` means here, and that which started this process."""
    process = type(multiprocessing.current_process())
    return f"{multiprocessing.__name__} {process.__module__.partition('.')[0]}"


def report(path):
    with open(path, "w") as file:
        file.write(answering())


class _WhoAnswers:
    def test_here(self):
        assert multiprocessing.__name__ == EXPECTED

    def test_child(self):
        context = multiprocessing.get_context(self.start_method)
        path = os.path.abspath(f"answering-{self.start_method}")
        process = context.Process(target=report, args=(path,))
        process.start()
        process.join()
        assert process.exitcode == 0
        with open(path) as file:
            assert file.read() == f"{EXPECTED} {EXPECTED}"

    def test_program(self):
        _, out, _ = assert_python_ok("-c", PROGRAM)
        assert out.decode().strip() == EXPECTED

    def test_program_that_ignores_the_environment(self):
        out = subprocess.check_output([sys.executable, "-E", "-S", "-c", PROGRAM], text=True)
        assert out.strip() == EXPECTED


class WhoAnswersFork(_WhoAnswers, unittest.TestCase):
    start_method = "fork"


class WhoAnswersSpawn(_WhoAnswers, unittest.TestCase):
    start_method = "spawn"


class WhoAnswersForkserver(_WhoAnswers, unittest.TestCase):
    start_method = "forkserver"
