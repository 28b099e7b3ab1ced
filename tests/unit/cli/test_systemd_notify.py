"""What systemd hears of a service."""

import pathlib
import socket

import pytest

from demail_hw.cli.systemd_notify import READY, STOPPING, notify


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_is_one_datagram(tmp_path: pathlib.Path, abstract: bool) -> None:
    name = f"@demail-hw-test-{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name[1:]}" if abstract else name)
        listener.settimeout(20)
        assert notify(READY, {"NOTIFY_SOCKET": name})
        assert notify(STOPPING, {"NOTIFY_SOCKET": name})
        assert (listener.recv(64), listener.recv(64)) == (b"READY=1", b"STOPPING=1")


@pytest.mark.parametrize("name", ["", "relative", "/nowhere/at/all", "@demail-hw-nobody-there"])
def test_nobody_listens(name: str) -> None:
    assert not notify(READY, {"NOTIFY_SOCKET": name})
    assert not notify(READY, {})
