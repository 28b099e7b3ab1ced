"""A client whose cable is cut: no FIN, no RST, only silence. The kernel's own TCP is the judge, in a namespace."""

import os
import pathlib
from collections.abc import Callable, Sequence

import pytest

import cut_cable
from child_process import Child
from tls_files import TlsAuthority


@pytest.fixture
def under(tool: Callable[[str], str]) -> Sequence[str]:
    tool("ip")
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [tool("unshare"), *user, "--net"]


def said(under: Sequence[str], folder: pathlib.Path, *words: str) -> list[str]:
    with Child(pathlib.Path(cut_cable.__file__), str(folder), *words, under=under) as child:
        lines = list(iter(child.hear, ""))
        assert child.wait() == 0
    return lines


def test_its_successor_takes_over_and_nobody_else(under: Sequence[str], tmp_path: pathlib.Path) -> None:
    authority = TlsAuthority(tmp_path)
    authority.issue("server", ip=cut_cable.SERVER)
    authority.issue("holder")
    authority.issue("stranger")

    assert said(under, tmp_path) == [
        "living: busy",
        "stranger: busy",
        "successor: granted",
        "released: taken over",
    ]


def test_without_tls_the_device_is_free_after_one_probe(under: Sequence[str], tmp_path: pathlib.Path) -> None:
    """With the shortest keepalive that the kernel has."""
    assert said(under, tmp_path, "hurried") == ["released: connection lost"]


@pytest.mark.slow  # the keepalive's ten seconds and more
def test_without_tls_the_device_is_free_again(under: Sequence[str], tmp_path: pathlib.Path) -> None:
    assert said(under, tmp_path) == ["released: connection lost"]
