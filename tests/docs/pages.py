"""The pages for users: where they are, and what is in them."""

import dataclasses
import itertools
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(GUIDE.glob("*.md"))]

_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Block:
    """What stands between two fences of a page.

    Attributes:
        page: The page's file.
        line: The number of its first line there.
        language: What the opening fence says.
        text: The block.
        output: The block of text that follows with nothing in between; empty if none does.
    """

    page: pathlib.Path
    line: int
    language: str
    text: str
    output: str

    def __str__(self):
        return f"{self.page.stem}-{self.line}"


def blocks_of(page):
    """Return the blocks of a page, in order."""
    text = page.read_text()
    matches = list(_FENCE.finditer(text))
    blocks = []
    for match, following in itertools.pairwise([*matches, None]):
        output = ""
        if following is not None and following[1] == "text":
            between = text[match.end() : following.start()]
            output = "" if between.strip() else following[2]
        line = text.count("\n", 0, match.start()) + 2
        blocks.append(Block(page, line, match[1], match[2], output))
    return blocks


def all_blocks(language=None):
    """Return the blocks of all pages, or those in one language."""
    found = [block for page in PAGES for block in blocks_of(page)]
    return [block for block in found if language in (None, block.language)]


def without_blocks(text):
    """Return the prose of a page."""
    return _FENCE.sub("", text)
