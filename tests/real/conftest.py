"""What the tests with foreign card programs share."""

import pathlib
from collections.abc import Callable

import pytest

from opensc import OpenSc
from pcscd import PrivatePcscd


@pytest.fixture
def opensc(tool: Callable[[str], str], pcscd: PrivatePcscd, tmp_path: pathlib.Path) -> OpenSc:
    """OpenSC's programs, on a PC/SC service of their own."""
    tool("opensc-tool")
    return OpenSc(pcscd, tmp_path)
