"""The example counts right, and says clearly what is wrong with its input."""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "python" / "wordcount.py"
LIMIT = 300.0  # seconds; only a deadlock takes this long

RUNNERS = {
    "standard library": [sys.executable, str(SCRIPT)],
    "procession": [sys.executable, "-m", "procession", str(SCRIPT)],
}


@pytest.fixture(params=RUNNERS)
def wordcount(request):
    def run(*arguments):
        return subprocess.run(
            [*RUNNERS[request.param], *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    return run


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "one.txt").write_text("the cat and the other_cat\n")
    (tmp_path / "below" / "two.txt").write_bytes(b"The CAT\xff7dog \xc3\xa9the \xe2\x84\xaaelvin")
    return tmp_path


def refused(done, *words):
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("options", [[], ["--workers", "1"], ["--workers", "3"], ["--sequential"]])
def test_words_are_counted(wordcount, tree, options):
    done = wordcount(tree, *options)
    assert done.stderr == ""
    table, _, workers = done.stdout.partition("\n\n")
    counts = {word: int(count) for count, word in map(str.split, table.splitlines())}
    assert counts == {"the": 4, "cat": 2, "and": 1, "dog": 1, "elvin": 1, "other_cat": 1}
    assert list(counts)[:3] == ["the", "cat", "and"], "by count, and among equals by word"
    assert sum(int(line.split()[2]) for line in workers.splitlines()) == 2
    assert all(
        ("PoolWorker" in line) == ("--sequential" not in options) for line in workers.splitlines()
    )


def test_missing_folder(wordcount, tmp_path):
    refused(wordcount(tmp_path / "missing"), "missing", "No such file or directory")


def test_file_in_place_of_a_folder(wordcount, tree):
    refused(wordcount(tree / "one.txt"), "one.txt", "Not a directory")


def test_unreadable_file(wordcount, tree):
    (tree / "unreadable").symlink_to("/proc/self/mem")  # for everybody, root too
    refused(wordcount(tree), "unreadable", "Input/output error")


@pytest.mark.parametrize("workers", ["0", "-1", "many", "1.5", ""])
def test_number_of_workers_that_is_none(wordcount, tree, workers):
    refused(wordcount(tree, f"--workers={workers}"), "number of workers")


def test_no_folder_at_all(wordcount):
    refused(wordcount(), "DIR")


def test_empty_folder(wordcount, tmp_path):
    done = wordcount(tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
