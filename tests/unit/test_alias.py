"""`multiprocessing` answered by this package: `python -m procession` and `procession.install()`."""

import subprocess
import sys

import pytest

LIMIT = 300.0  # seconds; only a deadlock takes this long

PROGRAM = """
import multiprocessing
import multiprocessing.pool
import multiprocessing.util
import sys
from multiprocessing import Queue, get_context
from multiprocessing.pool import Pool

def modules():
    import multiprocessing.queues
    return [
        multiprocessing.__name__,
        multiprocessing.Process.__module__,
        multiprocessing.pool.__name__,
        multiprocessing.queues.__name__,
        multiprocessing.util.__name__,
        type(Queue()).__module__.partition(".")[0],
    ]

def send_modules(target):
    target.put(modules())

if __name__ == "__main__":
    print(modules(), sys.argv[1:])
    for method in ("fork", "spawn", "forkserver"):
        ctx = get_context(method)
        replies = ctx.Queue()
        child = ctx.Process(target=send_modules, args=(replies,))
        child.start()
        assert replies.get() == modules(), "the child has other modules"
        child.join()
        with ctx.Pool(1) as pool:
            assert pool.apply(modules) == modules(), "the worker has other modules"
"""
EXPECTED = [
    "procession",
    "procession._process",
    "procession.pool",
    "procession.queues",
    "multiprocessing.util",
    "procession",
]


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        **options,
    )


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_script_and_its_children_get_this_package(program):
    done = run("-m", "procession", program, "one", "--two")
    assert done.stderr == ""
    assert done.stdout.strip() == f"{EXPECTED} ['one', '--two']"
    assert done.returncode == 0


def test_module_and_its_children_get_this_package(program):
    done = run("-m", "procession", "-m", "program", "one", cwd=program.parent)
    assert done.stderr == ""
    assert done.stdout.strip() == f"{EXPECTED} ['one']"


def test_install_in_the_program_itself(program):
    program.write_text("import procession\nprocession.install()\nprocession.install()\n" + PROGRAM)
    done = run(program)
    assert done.stderr == ""
    assert done.stdout.strip() == f"{EXPECTED} []"


def test_code_on_the_command_line():
    code = "import multiprocessing, sys; print(multiprocessing.__name__, sys.argv)"
    done = run("-m", "procession", "-c", code, "one")
    assert done.stdout.strip() == "procession ['-c', 'one']"


def test_without_it_the_standard_library_is_as_it_was(program):
    program.write_text("import procession\nimport multiprocessing\nprint(multiprocessing.__name__)")
    assert run(program).stdout.strip() == "multiprocessing"


def test_script_sees_what_it_would_see_without(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(__name__, __file__, sys.argv, sys.path[0])")
    assert run("-m", "procession", script, "x").stdout == run(script, "x").stdout


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(3)", 3), ("raise ValueError('text')", 1), ("pass", 0)],
)
def test_exit_status_is_the_program_s(tmp_path, code, status):
    script = tmp_path / "script.py"
    script.write_text(code)
    done = run("-m", "procession", script)
    assert done.returncode == status
    assert ("ValueError: text" in done.stderr) == (status == 1)


def test_script_that_is_not_there(tmp_path):
    done = run("-m", "procession", tmp_path / "missing.py")
    assert done.returncode == 2
    assert "missing.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_script_at_all():
    done = run("-m", "procession")
    assert done.returncode != 0
    assert "usage: python -m procession" in done.stderr
