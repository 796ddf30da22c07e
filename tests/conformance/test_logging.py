"""What users rely on from the logger of the package.

Every test runs against the standard library too. One that fails there is wrong about
`multiprocessing`, whatever `procession` does. The logger is process-wide, and the packages share
it, so each test has an interpreter of its own.
"""

import subprocess
import sys

import pytest

LIMIT = 300.0  # seconds; only a deadlock takes this long
METHODS = ["fork", "spawn", "forkserver"]


def run_program(tmp_path, mp, program, *arguments):
    """Return the lines that a program, in which `mp` is the package, prints to both outputs."""
    script = tmp_path / "program.py"
    script.write_text(f"import {mp.__name__} as mp\nimport logging, sys\n{program}")
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


@pytest.fixture
def run(mp, tmp_path):
    return lambda program, *arguments: run_program(tmp_path, mp, program, *arguments)


@pytest.fixture(params=METHODS)
def method(mp, request):
    if request.param not in mp.get_all_start_methods():
        pytest.skip(f"{mp.__name__} does not have {request.param} yet")
    return request.param


def test_logger_has_its_name_and_no_handler(run):
    printed, logged = run("""
logger = mp.get_logger()
print(logger.name, bool(logger.propagate), logger.handlers, logger.level == logging.NOTSET)
print(logger is mp.get_logger() is logging.getLogger("multiprocessing"))
logger.info("nobody sees this")
""")
    assert printed == ["multiprocessing False [] True", "True"]
    assert logged == []


def test_log_to_stderr_writes_level_and_process_name(run):
    printed, logged = run("""
logger = mp.log_to_stderr()
print(logger is mp.get_logger(), len(logger.handlers))
logger.warning("first %d", 1)
logger.info("not shown at this level")
logger.setLevel("INFO")
logger.info("second")
""")
    assert printed == ["True 1"]
    assert logged[:2] == ["[WARNING/MainProcess] first 1", "[INFO/MainProcess] second"]


@pytest.mark.parametrize("level", ["logging.ERROR", "'ERROR'"])
def test_log_to_stderr_sets_the_level(run, level):
    printed, logged = run(f"""
logger = mp.log_to_stderr({level})
print(logger.level == logging.ERROR, logger.getEffectiveLevel() == logging.ERROR)
logger.warning("not shown")
logger.error("shown")
""")
    assert printed == ["True True"]
    assert logged == ["[ERROR/MainProcess] shown"]


def test_log_to_stderr_without_a_level_leaves_the_level(run):
    printed, _ = run("""
mp.get_logger().setLevel(logging.CRITICAL)
print(mp.log_to_stderr().level == logging.CRITICAL)
""")
    assert printed == ["True"]


def test_name_of_the_process_is_the_one_at_the_time(run):
    _, logged = run("""
logger = mp.log_to_stderr()
mp.current_process().name = "renamed"
logger.error("text")
""")
    assert logged == ["[ERROR/renamed] text"]


CHILD = """
def say():
    logger = mp.get_logger()
    logger.info("level %s, %d handlers", logging.getLevelName(logger.level), len(logger.handlers))
    logger.debug("not shown at this level")

if __name__ == "__main__":
    mp.log_to_stderr("INFO")
    child = mp.get_context(sys.argv[1]).Process(target=say, name="the child")
    child.start()
    child.join()
    print(child.exitcode)
"""


def test_child_logs_as_its_parent_does(run, method):
    printed, logged = run(CHILD, method)
    assert printed == ["0"]
    assert logged.count("[INFO/the child] level INFO, 1 handlers") == 1
    assert not any("not shown" in line for line in logged)
    assert "[INFO/the child] process exiting with exitcode 0" in logged


WORKER = """
def say(text):
    mp.get_logger().warning(text)

if __name__ == "__main__":
    mp.log_to_stderr("WARNING")
    with mp.get_context(sys.argv[1]).Pool(1) as pool:
        pool.map(say, ["one", "two"])
        pool.close()
        pool.join()
"""


def test_worker_of_a_pool_logs_as_its_parent_does(run, method):
    _, logged = run(WORKER, method)
    texts = [line.split("] ")[1] for line in logged if "PoolWorker-1]" in line]
    assert texts == ["one", "two"]


QUIET = """
def say():
    print(len(mp.get_logger().handlers))
    mp.get_logger().info("nobody sees this")

if __name__ == "__main__":
    child = mp.get_context(sys.argv[1]).Process(target=say)
    child.start()
    child.join()
"""


def test_child_of_a_parent_that_does_not_log_does_not_log(run, method):
    printed, logged = run(QUIET, method)
    assert printed == ["0"]
    assert logged == []


OWN_HANDLER = """
def say():
    mp.get_logger().warning("from the child")

if __name__ == "__main__":
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(processName)s says %(message)s"))
    mp.get_logger().addHandler(handler)
    child = mp.get_context("fork").Process(target=say, name="the child")
    child.start()
    child.join()
"""


def test_forked_child_has_the_handlers_of_the_program(run):
    printed, logged = run(OWN_HANDLER)
    assert printed == ["the child says from the child"]
    assert logged == []
