"""The programs in Python of the README and the guide run, and print what the page says.

Each runs by itself; one with a guard under fork and under spawn, unless it chooses the start method
itself. The programs in Rust are documentation tests of the crate.
"""

import os
import shutil
import subprocess
import sys

import pytest

from tests.docs.pages import GUIDE, ROOT, all_blocks

LIMIT = 300.0  # seconds; only a deadlock takes this long
CERTIFICATES = ROOT / "tests" / "certificates"
START = ROOT / "tests" / "docs" / "start.py"
GUARD = 'if __name__ == "__main__":'
CHOOSES = ("set_start_method(", "get_context(", "install()")


def _runs():
    """Every program with the start methods that it is to be run under."""
    for block in all_blocks("python"):
        free = GUARD in block.text and not any(call in block.text for call in CHOOSES)
        for method in ("fork", "spawn") if free else (None,):
            name = str(block) if method is None else f"{block}-{method}"
            yield pytest.param(block, method, id=name)


@pytest.mark.parametrize(("block", "method"), list(_runs()))
def test_program_prints_what_the_page_says(tmp_path, block, method):
    script = tmp_path / "program.py"
    script.write_text(block.text)
    if ".pem" in block.text:
        shutil.copytree(CERTIFICATES, tmp_path, dirs_exist_ok=True)
    chosen = [] if method is None else [str(START), method]
    done = subprocess.run(
        [sys.executable, *chosen, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == block.output
    assert done.returncode == 0


@pytest.mark.parametrize("page", sorted(GUIDE.glob("*.md")), ids=lambda page: page.stem)
def test_page_shows_both_faces(page):
    """What is about one of them alone, or is a list, needs no program of the other."""
    languages = {block.language for block in all_blocks() if block.page == page}
    lists = {"README", "differences", "migrating", "troubleshooting"}
    assert page.stem in lists or {"python", "rust"} <= languages
