"""Tables that fit a terminal, and targets beside what was measured."""

import platform
import ssl
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cryptography
from cryptography.hazmat.backends.openssl import backend

__all__ = ["Target", "machine", "table", "verdicts"]

_GAP = "  "


class Target(NamedTuple):
    """A figure and what it was to be: at most, or at least."""

    name: str
    measured: float
    wanted: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Was it reached?"""
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they must be, the first to the left, the others to the right."""
    lines = [tuple(heads), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join([title, *(_line(cells, widths) for cells in lines)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return _GAP.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def verdicts(title: str, targets: Iterable[Target]) -> str:
    """Every target: met or missed."""
    rows = []
    for target in targets:
        sign = ">=" if target.at_least else "<="
        wanted = f"{sign} {target.wanted:g} {target.unit}"
        rows.append((target.name, f"{target.measured:.4g}", wanted, "met" if target.met else "MISSED"))
    return table(title, ("target", "measured", "wanted", ""), rows)


def machine() -> str:
    """What was measured on: figures of two machines are not compared."""
    return (
        f"{_processor()}, {platform.system()} {platform.release()}; Python {sys.version.split()[0]};"
        f" {ssl.OPENSSL_VERSION.split('  ')[0]};\ncryptography {cryptography.__version__}"
        f" with {backend.openssl_version_text()}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
