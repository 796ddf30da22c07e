"""The runner itself: it must fail where the suite fails, hangs, leaks or does not run at all."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.cpython import child, every, run

LIMIT = 300.0  # seconds; only a deadlock takes this long
HELPER = "from multiprocessing.resource_tracker import main; import multiprocessing as m"


def program(code, *flags):
    """What a program prints that a test of the suite starts."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        env=run.environment("procession"),
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    return done.stdout.split()


def watch(code, limit, folder):
    with (folder / "log").open("wb") as log:
        return run.watch([sys.executable, "-c", code], limit, folder, dict(os.environ), log)


def record(folder, *lines):
    path = folder / "record"
    names = ("test", "outcome", "text")
    path.write_text(
        "".join(json.dumps(dict(zip(names, line, strict=True))) + "\n" for line in lines)
    )
    return run.read_record(path)


def test_programs_of_the_suite_have_the_package_once_they_ask_for_it():
    assert program(
        "import sys; print('multiprocessing' in sys.modules, 'procession' in sys.modules)\n"
        "import multiprocessing as m, multiprocessing.pool as p; print(m.__name__, p.__name__)"
    ) == ["False", "False", "procession", "procession.pool"]


def test_the_original_s_helper_processes_stay_the_original_s():
    assert program(f"{HELPER}; print(m.__name__)") == ["multiprocessing"]


def test_a_program_without_environment_gets_the_package_too(monkeypatch):
    code = "import multiprocessing as m\nprint(m.__name__)"
    path = run.environment("procession")["PYTHONPATH"]
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("PROCESSION_CPYTHON_SUITE", "1")
    command = [sys.executable, "-E", "-S", "-c", code]
    done = subprocess.run(
        child.with_site(command), stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True
    )
    assert done.stdout.split() == ["procession"]


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-c", "pass"],
        [sys.executable, "-E", "script.py"],
        ["/bin/sh", "-E", "-c", "true"],
        "text",
    ],
)
def test_other_commands_stay_as_they_are(command):
    assert child.with_site(command) is command


def test_a_program_that_does_not_end_is_ended(tmp_path):
    problem = watch(
        "import os, signal; os.fork(); print(os.getpgrp(), flush=True); signal.pause()", 3, tmp_path
    )
    assert "still running after 3 s" in problem
    groups = {int(word) for word in (tmp_path / "log").read_text().split() if word.isdigit()}
    assert not [member for group in groups for member in run.members(group)]


def test_a_process_that_is_left_behind_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "END_LIMIT", 0.2)
    problem = watch(
        "import os, signal\nprint(os.getpgrp(), flush=True)\nif os.fork() == 0: signal.pause()",
        LIMIT,
        tmp_path,
    )
    assert problem.startswith("it left processes running")
    assert not run.members(int((tmp_path / "log").read_text()))


def test_an_exit_status_is_a_failure(tmp_path):
    assert "ended with 3" in watch("raise SystemExit(3)", LIMIT, tmp_path)
    assert watch("", LIMIT, tmp_path) == ""


def test_the_worst_that_is_said_of_a_test_counts(tmp_path):
    outcomes = record(
        tmp_path,
        ("A.a", "started", ""),
        ("A.a", "failed", "first\n"),
        ("A.a", "failed", "second\n"),
        ("A.a", "passed", ""),
        ("A.b", "started", ""),
        ("A.b", "passed", ""),
        ("A.c", "started", ""),
        ("A.d", "listed", ""),
    )
    assert {test: outcome.kind for test, outcome in outcomes.items()} == {
        "A.a": "failed",
        "A.b": "passed",
        "A.c": "started",
        "A.d": "listed",
    }
    assert outcomes["A.a"].text == "first\nsecond\n"


def test_a_skip_has_a_reason_and_known_start_methods(tmp_path):
    path = tmp_path / "skips.toml"
    path.write_text(
        '"A.a" = "why"\n'
        '"A.b" = { methods = ["spawn"], reason = "why" }\n'
        '"A.c" = { since = "3.13", reason = "why" }\n'
    )
    first, second, third = run.read_skips(path)
    assert (first.methods, second.methods, third.methods) == (run.METHODS, ("spawn",), run.METHODS)
    assert (first.since, third.since) == ((0,), (3, 13))


@pytest.mark.parametrize(
    ("entry", "name", "answers"),
    [
        ("_TestQueue", "WithProcessesTestQueue", True),
        ("_TestQueue", "_TestQueue", True),
        ("TestFlags", "TestFlags", True),
        ("TestFlags", "WithProcessesTestFlags", False),
        ("_TestQueue", "WithProcessesTestLock", False),
    ],
)
def test_an_entry_stands_for_what_the_suite_makes_of_its_class(entry, name, answers):
    assert run.answers(run.Entry("fork", "suite_fork", entry, (0,)), name) is answers


@pytest.mark.parametrize(
    "line", ['methods = ["vfork"], reason = "why"', 'reason = ""', 'reason = "why", version = 3']
)
def test_any_other_skip_is_refused(tmp_path, line):
    path = tmp_path / "skips.toml"
    path.write_text(f'"A.a" = {{ {line} }}\n')
    with pytest.raises(ValueError, match=r"A\.a: "):
        run.read_skips(path)


def test_nothing_run_is_a_failure():
    done = subprocess.run(
        [sys.executable, pathlib.Path(run.__file__), "--under", "original", "NoSuchClass"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("0 passed")


def test_interpreters_are_found_by_name_and_those_that_do_not_work_left_out(tmp_path, monkeypatch):
    works = tmp_path / f"python3.{sys.version_info.minor}"
    works.symlink_to(sys.executable)
    broken = tmp_path / "python3.99"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [found[1:] for found in every.found()] == [(sys.version_info[:3], str(works))]
