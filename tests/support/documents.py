"""The documents and the Python in them. A block that begins with ``python`` runs anywhere; one that begins with
``python pcsc`` needs a card behind PC/SC."""

import pathlib
import re
from collections.abc import Iterator

__all__ = ["ALL_BLOCKS", "DOCUMENTS", "PCSC_BLOCKS", "PLAIN_BLOCKS", "blocks", "name", "run_blocks"]

_ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/*.md")])

PLAIN_BLOCKS = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PCSC_BLOCKS = re.compile(r"^```python pcsc\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ALL_BLOCKS = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(_ROOT))


def blocks(path: pathlib.Path, kind: re.Pattern[str]) -> Iterator[str]:
    """The code of each block, below as many empty lines as make a traceback point into the document."""
    text = path.read_text(encoding="utf-8")
    for match in kind.finditer(text):
        yield "\n" * text.count("\n", 0, match.start(1)) + match[1]


def run_blocks(path: pathlib.Path, kind: re.Pattern[str]) -> None:
    """Run the blocks of a file in one namespace, in order."""
    namespace: dict[str, object] = {"__name__": path.stem}
    for code in blocks(path, kind):
        exec(compile(code, path, "exec"), namespace)
