"""Debian's usbip tool against our USB/IP server."""

import contextlib
import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from demail_hw.address import Address
from demail_hw_drivers.usbip_client import connect
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ccid_device import SimulatedUsbReader

SECONDS = 20.0
KERNEL_CLIENT = pathlib.Path("/sys/devices/platform/vhci_hcd.0")


@pytest.fixture
def server() -> Iterator[UsbIpServer]:
    with UsbIpServer([SimulatedUsbReader(None)], port=0) as running:
        yield running


@pytest.fixture
def usbip(tool: Callable[[str], str], server: UsbIpServer) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the tool with these arguments against the server."""
    program = tool("usbip")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "--tcp-port", str(server.port), *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run


Usbip = Callable[..., subprocess.CompletedProcess[str]]


def test_it_lists_the_reader(usbip: Usbip) -> None:
    listed = usbip("list", "-r", "127.0.0.1")

    assert listed.returncode == 0, listed.stderr
    assert "1-1:" in listed.stdout
    assert "(04e6:5710)" in listed.stdout
    assert "(0b/00/00)" in listed.stdout


def test_it_does_not_list_a_reader_that_somebody_has(usbip: Usbip, server: UsbIpServer) -> None:
    address = Address.parse(f"usbip://127.0.0.1:{server.port}/")
    with contextlib.closing(connect(address, deadline=time.monotonic() + SECONDS)):
        listed = usbip("list", "-r", "127.0.0.1")
        refused = usbip("attach", "-r", "127.0.0.1", "-b", "1-1")

    assert "04e6:5710" not in listed.stdout
    assert refused.returncode != 0
    assert "busy" in refused.stderr.lower()


def test_it_imports_the_reader_and_vanishes(usbip: Usbip, server: UsbIpServer) -> None:
    if KERNEL_CLIENT.exists():
        pytest.skip("this kernel has vhci_hcd: attach would make a real USB device here")
    attached = usbip("attach", "-r", "127.0.0.1", "-b", "1-1")

    assert attached.returncode != 0
    assert "vhci" in attached.stderr
    assert server.counters.imports == 1
    # The server lives, and the reader is free as soon as its server has seen the tool go.
    deadline = time.monotonic() + SECONDS
    while "(04e6:5710)" not in usbip("list", "-r", "127.0.0.1").stdout:
        assert time.monotonic() < deadline
    missing = usbip("attach", "-r", "127.0.0.1", "-b", "9-9")
    assert missing.returncode != 0
    assert server.counters.refused == 1
