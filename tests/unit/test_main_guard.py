"""A program whose main module starts processes while it is imported."""

import subprocess
import sys

import pytest

LIMIT = 300.0  # seconds; only a deadlock takes this long

PROCESSES = """
import procession
procession.set_start_method({method!r})
children = [procession.Process(target=print) for _ in range(3)]
for child in children:
    child.start()
for child in children:
    child.join()
print([child.exitcode for child in children])
"""

POOL = """
import procession
pool = procession.get_context({method!r}).Pool(3)
try:
    pool.map(print, [1])
except procession.BrokenPoolError:
    print("broken")
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize(("program", "printed"), [(PROCESSES, "[1, 1, 1]\n"), (POOL, "broken\n")])
def test_one_child_says_what_is_missing(tmp_path, method, program, printed):
    script = tmp_path / "program.py"
    script.write_text(program.format(method=method))
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout == printed
    assert done.stderr.count('if __name__ == "__main__":') == 1
    assert done.stderr.startswith("RuntimeError:\nAn attempt has been made to start a new process")
    assert f'File "{script}", line 3' in done.stderr or f'File "{script}", line 6' in done.stderr
    assert "Traceback" not in done.stderr
