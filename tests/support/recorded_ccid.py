"""CCID conversations that were recorded between libccid and a reader: a text file, a line a message."""

import pathlib
import re
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["Line", "read_trace"]

_LINE: Final = re.compile(r"(->|<-) (\w+) ((?:[0-9a-f]{2} ){9}[0-9a-f]{2}) ?([0-9a-f]*)(\.\.\.)?")
_FOLDER: Final = pathlib.Path(__file__).parents[1] / "unit" / "ccid" / "vectors"


class Line(NamedTuple):
    to_reader: bool
    name: str
    message: bytes


def read_trace(name: str, restore: Callable[[bool, bytes, bytes], bytes]) -> list[Line]:
    """``restore``: the whole message, from its direction, its header and the first bytes that the recorder kept."""
    text = (_FOLDER / f"{name}.txt").read_text()
    return [
        Line(match[1] == "->", match[2], restore(match[1] == "->", bytes.fromhex(match[3]), bytes.fromhex(match[4])))
        for match in map(_LINE.fullmatch, text.splitlines())
        if match
    ]
