"""Readers through the real libusb, on a USB that umockdev makes (tests/support/libusb_bed.py).

What libusb sees is decided when a process starts: everything here runs in one of its own.
"""

import importlib.util
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from libusb_bed import environment

ROOT = pathlib.Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
SECONDS = 110.0
START = f"""
import contextlib, os, sys, threading, time
sys.path.insert(0, {str(SUPPORT)!r})
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from demail_hw import KeyRole, open_provider
from demail_hw.address import Address
from demail_hw.errors import DeviceBusy, DeviceLost, DeviceNotFound
from demail_hw.registry import find_readers, open_reader
from demail_hw_drivers.libusb import claim, connect
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from libusb_bed import plugged_in

SERIAL = "53692013000000"
slot = SimulatedUsbReader(netkey3(), serial=SERIAL)

def soon():
    return time.monotonic() + 20

def sign(address):
    with open_provider(address, pin=lambda: b"123456") as provider:
        key = provider.identity(KeyRole.SIGNATURE).private_key
        signature = key.sign(b"De-Mail", padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, b"De-Mail", padding.PKCS1v15(), hashes.SHA256())
"""
END = """
assert not [thread for thread in threading.enumerate() if "libusb" in thread.name]
print("done")
"""


@pytest.fixture
def preloaded(tool: Callable[[str], str], pytestconfig: pytest.Config) -> Callable[..., str]:
    """Run Python where libusb sees the test's devices and no others; what it printed."""
    tool("umockdev-run")
    tool("/usr/lib/python3/dist-packages/gi/__init__.py")
    tool("/usr/lib/x86_64-linux-gnu/girepository-1.0/UMockdev-1.0.typelib")
    if importlib.util.find_spec("usb1") is None:
        give_up = pytest.fail if pytestconfig.getoption("--require-real") else pytest.skip
        give_up("libusb1 is not here: pip install 'demail-hw[usb]'")

    def run(*arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run


@pytest.fixture
def script(preloaded: Callable[..., str]) -> Callable[[str], None]:
    """Run these lines to their end; no thread of libusb is left then."""

    def run(lines: str) -> None:
        assert preloaded("-W", "error", "-c", START + lines + END).endswith("done\n")

    return run


@pytest.mark.parametrize("suite", ["test_usb_transport.py", "test_reader.py", "test_card_connection.py"])
def test_the_contract_holds_through_libusb(preloaded: Callable[..., str], suite: str) -> None:
    said = preloaded("-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", f"tests/contract/{suite}")
    assert " passed" in said
    assert "skipped" not in said


def test_the_reader_is_listed_and_signs(script: Callable[[str], None]) -> None:
    script("""
with plugged_in(slot):
    (info,) = find_readers("libusb:")
    assert info == (f"libusb:serial={SERIAL}", "CLOUD 2700 F Smart Card Reader", SERIAL, None, None), info
    for address in (info.address, "libusb:", "libusb:04e6:5710", "libusb:1-1"):
        sign(address)
""")


def test_a_device_of_two_interfaces_is_read_at_either(script: Callable[[str], None]) -> None:
    script("""
from demail_hw.errors import ProtocolViolation
from demail_hw_simulators.composite_reader import CompositeReader
from demail_hw_simulators.reader_profiles import reader_profile
contact = SimulatedUsbReader(None, profile=reader_profile("utrust_4701_f"))
both = CompositeReader(contact, SimulatedUsbReader(netkey3(), profile=reader_profile("utrust_4701_f_cl")))
with plugged_in(both):
    with contextlib.closing(open_reader("libusb:")) as reader:
        assert not reader.card_present(deadline=soon())
    sign("libusb:?interface=1")
    try:
        open_reader("libusb:?interface=2")
    except ProtocolViolation as error:
        assert "interface 2" in error.message and error.remedy, error
    else:
        raise AssertionError("there is no such interface")
""")


def test_what_is_not_plugged_in_is_not_found_and_what_is_there_is_listed(script: Callable[[str], None]) -> None:
    script("""
with plugged_in(slot):
    for selector in ("serial=1", "04e6:5811", "1-2"):
        try:
            open_reader(f"libusb:{selector}")
        except DeviceNotFound as error:
            assert f"no reader {selector} on" in error.message and SERIAL in error.message, error
        else:
            raise AssertionError(selector)
""")


def test_a_reader_that_somebody_has_is_busy_and_the_next_try_may_have_it(script: Callable[[str], None]) -> None:
    script("""
os.environ["USBFS_HELD"] = "yes"
with plugged_in(slot):
    try:
        open_reader("libusb:")
    except DeviceBusy as error:
        assert error.remedy and error.transient, error
    else:
        raise AssertionError("it was not busy")
del os.environ["USBFS_HELD"]
with plugged_in(slot), contextlib.closing(open_reader("libusb:")) as reader:
    assert reader.card_present(deadline=soon())
""")


def test_an_answer_to_somebody_before_us_is_thrown_away(script: Callable[[str], None]) -> None:
    script("""
from demail_hw.ccid.messages import GetSlotStatus
with plugged_in(slot):
    first = connect(Address("libusb"), deadline=soon())
    first.bulk_out(GetSlotStatus().encode(0, 0), deadline=soon())
    first.close()
    second = connect(Address("libusb"), deadline=soon())
    answer = second.exchange(GetSlotStatus().encode(0, 1), 1034, deadline=soon())
    assert answer[6] == 1, answer
    second.close()
""")


def test_a_reader_that_is_pulled_out_is_lost(script: Callable[[str], None]) -> None:
    script("""
with plugged_in(slot) as unplug, contextlib.closing(open_reader("libusb:")) as reader:
    unplug()
    try:
        reader.wait_for_card(False, deadline=soon())
    except DeviceLost:
        pass
    else:
        raise AssertionError("it is still there")
""")


def test_a_reader_that_nobody_closed_does_not_hold_up_the_end_of_the_process(preloaded: Callable[..., str]) -> None:
    said = preloaded(
        "-c",
        f"""{START}
plug = plugged_in(slot)
plug.__enter__()
left_open = open_reader("libusb:")
print(left_open.card_present(deadline=soon()))
""",
    )
    assert said == "True\n"


def test_the_usb_server_exports_it_and_takes_the_card_s_power_at_the_end(script: Callable[[str], None]) -> None:
    script("""
with plugged_in(slot):
    device = claim(Address("libusb"))
    with contextlib.closing(device), UsbIpServer([device], port=0) as server:
        sign(f"usbip://127.0.0.1:{server.port}/serial={SERIAL}")
        reader = open_reader(f"usbip://127.0.0.1:{server.port}/")
        connection = reader.connect(deadline=soon())
        assert slot.powered
        server.close()
        assert not slot.powered
""")


def test_the_command_line_serves_it(script: Callable[[str], None]) -> None:
    script("""
import json, subprocess
with plugged_in(slot):
    command = [sys.executable, "-m", "demail_hw.cli", "serve", "--json", "--until-eof", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen([*command, "libusb:"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with server:
        sign(json.loads(server.stdout.readline())["address"])
        server.stdin.close()
    assert server.returncode == 0, server.returncode
""")
