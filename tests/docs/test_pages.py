"""What the README and the guide name is there, and what is there they name."""

import importlib
import importlib.util
import inspect
import re

import pytest

import procession
from tests.docs.pages import GUIDE, PAGES, ROOT, all_blocks, blocks_of, without_blocks

LANGUAGES = {"python", "rust", "sh", "text", "toml"}
MODULES = [
    "aio",
    "connection",
    "errors",
    "forkserver",
    "futures",
    "heap",
    "managers",
    "pool",
    "reduction",
    "resource_sharer",
    "shared_memory",
    "sharedctypes",
    "spawn",
    "synchronize",
]
# What users hold in their hands: the methods of these have to be told of.
CLASSES = [
    ("_procession", "ApplyResult"),
    ("_procession", "Connection"),
    ("_procession", "IMapIterator"),
    ("_procession", "JoinableQueue"),
    ("_procession", "Queue"),
    ("_procession", "SemLock"),
    ("_process", "Process"),
    ("connection", "Listener"),
    ("futures", "ProcessPoolExecutor"),
    ("managers", "BaseManager"),
    ("pool", "Pool"),
    ("shared_memory", "ShareableList"),
    ("shared_memory", "SharedMemory"),
    ("synchronize", "Barrier"),
    ("synchronize", "Condition"),
    ("synchronize", "Event"),
]
# For programs that have been written for the original; the pages say nothing of these.
FOR_COMPATIBILITY = {
    "ForkingPickler",
    "RECURSIVE_MUTEX",
    "SEMAPHORE",
    "get_command_line",
    "get_executable",
    "get_preparation_data",
    "import_main_path",
    "is_forking",
    "prepare",
    "spawn_main",
    "dump",
    "handle",
    "kind",
    "maxvalue",
    "name",
    "recvfds",
    "sendfds",
}


def _told():
    """Every word of the guide that stands in code."""
    text = "\n".join(page.read_text() for page in GUIDE.glob("*.md"))
    code = re.findall(r"`([^`\n]+)`", without_blocks(text))
    code += [block.text for block in all_blocks() if block.page.parent == GUIDE]
    return set(re.findall(r"\w+", "\n".join(code)))


def _public_names():
    yield from procession.__all__
    for module in MODULES:
        yield from importlib.import_module(f"procession.{module}").__all__
    for module, name in CLASSES:
        found = getattr(importlib.import_module(f"procession.{module}"), name)
        yield from (member for member in dir(found) if not member.startswith("_"))


def test_every_public_name_is_in_the_guide():
    missing = set(_public_names()) - _told() - FOR_COMPATIBILITY
    assert not missing


def test_what_is_left_out_is_there():
    assert set(_public_names()) >= FOR_COMPATIBILITY


def test_classes_are_documented():
    for module, name in CLASSES:
        found = getattr(importlib.import_module(f"procession.{module}"), name)
        for member, value in inspect.getmembers(found):
            if not member.startswith("_") and callable(value):
                assert inspect.getdoc(value), f"{name}.{member} says nothing"


def test_errors_are_explained():
    page = (GUIDE / "troubleshooting.md").read_text()
    for name in importlib.import_module("procession.errors").__all__:
        assert f"`{name}`" in page


def test_variables_of_the_environment_are_explained():
    sources = (ROOT / "crates" / "procession" / "src").rglob("*.rs")
    read = "\n".join(source.read_text().split("mod tests {")[0] for source in sources)
    names = set(re.findall(r'"(PROCESSION_[A-Z_]+)"', read))
    assert "PROCESSION_ARENA_MAX" in names
    page = (GUIDE / "troubleshooting.md").read_text()
    assert not {name for name in names if f"`{name}" not in page} - INTERNAL


# Set by parents for their children, and by tests for themselves.
INTERNAL = {"PROCESSION_CHILD", "PROCESSION_STORM", "PROCESSION_TEST_APART"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_in_a_language_that_is_checked(page):
    """A block without a language would be taken for a program in Rust."""
    assert {block.language for block in blocks_of(page)} <= LANGUAGES
    assert page.read_text().count("```") == 2 * len(blocks_of(page))


def _anchors(page):
    titles = re.findall(r"^#+ (.*)$", without_blocks(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    prose = without_blocks(page.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    for link in links:
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_every_page_is_in_the_index():
    index = (GUIDE / "README.md").read_text()
    for page in GUIDE.glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index


def test_programs_in_rust_are_documentation_tests():
    guide = (ROOT / "crates" / "procession" / "src" / "guide.rs").read_text()
    for block in all_blocks("rust"):
        assert f'include_str!("../../../{block.page.relative_to(ROOT)}")' in guide


def _targets():
    makefile = (ROOT / "Makefile").read_text()
    gates = re.search(r"^GATES := (.*)$", makefile, re.MULTILINE)[1].split()
    return {*gates, *re.findall(r"^([a-z-]+)(?: [a-z-]+)*:", makefile, re.MULTILINE)}


def _commands():
    for block in all_blocks("sh"):
        for line in block.text.splitlines():
            command = line.partition("#")[0].split()
            while command and "=" in command[0]:
                del command[0]
            if command:
                yield block, command


@pytest.mark.parametrize(("block", "command"), list(_commands()), ids=str)
def test_command_is_one_that_there_is(block, command):
    match command:
        case ["make", *targets]:
            assert targets
            assert set(targets) <= _targets()
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module)
        case ["python", script, *_]:
            assert script == "script.py" or (ROOT / script).is_file()
        case ["cargo", "test" | "build" | "run" | "add", *_]:
            pass
        case ["ls" | "cat" | "grep" | "ps", *_]:
            pass
        case _:
            pytest.fail(f"{block}: no command that a page may name: {' '.join(command)}")
