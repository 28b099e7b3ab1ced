"""Wireshark's dissectors on our captures: USB/IP, CCID, and the APDUs; the PIN is nowhere."""

import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from demail_hw.cli.exit_codes import ExitCode
from demail_hw_drivers.tls_stream import server_context
from demail_hw_drivers.usbip_capture import CaptureFile
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.reader_profiles import reader_profile
from documents import DOCUMENTS
from tls_files import TlsAuthority

SECONDS = 60
PIN = "918273"
# TShark knows USB/IP and CCID, but has to be told which is where.
DECODE_AS = ("tcp.port==3240,usbip", "usb.product==0x04e65710,usbccid", "usbccid.subdissector,iso7816")

Dissect = Callable[[pathlib.Path], list[tuple[str, str]]]


@pytest.fixture
def dissect(tool: Callable[[str], str]) -> Dissect:
    """Each frame's protocols, and what is said of it."""
    program = tool("tshark")

    def run(path: pathlib.Path) -> list[tuple[str, str]]:
        rules = [word for rule in DECODE_AS for word in ("-d", rule)]
        fields = ("-T", "fields", "-e", "frame.protocols", "-e", "_ws.col.Info")
        done = subprocess.run(
            [program, "-n", "-r", str(path), *rules, *fields],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        frames = (line.split("\t") for line in done.stdout.splitlines())
        return [(protocols.removeprefix("raw:ip:tcp"), info) for protocols, info in frames]

    return run


def use_the_card(address: str, folder: pathlib.Path) -> None:
    """A PIN that is wrong, by the command line."""
    source = folder / "pin"
    source.write_text(f"{PIN}\n")
    source.chmod(0o600)
    program = (sys.executable, "-m", "demail_hw.cli", "pin", "verify", address, "--pin", f"file:{source}")
    done = subprocess.run(program, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == ExitCode.PIN, done.stderr


def assert_named(frames: list[tuple[str, str]]) -> None:
    assert (":usbip", "Import Request") in frames
    assert (":usbip", "Import Response") in frames
    assert "GET DESCRIPTOR Response CONFIGURATION" in [info for _, info in frames]
    assert (":usbip:usbccid", "CCID Packet - PC to Reader: ICC Power On") in frames
    assert (":usbip:usbccid", "CCID Packet - Reader to PC: Slot Status") in frames
    assert any(protocols.endswith(":usbccid:iso7816") and info.startswith("ATR") for protocols, info in frames)
    assert not any("Malformed" in info for _, info in frames)


def test_the_document_tells_what_it_has_to_be_told() -> None:
    (document,) = (path for path in DOCUMENTS if path.name == "cli.md")
    rules = " ".join(f"-d {rule}" for rule in DECODE_AS)
    assert f"$ tshark -r office.pcapng {rules}\n" in document.read_text(encoding="utf-8")


def test_it_names_the_apdus_of_either_side(dissect: Dissect, tmp_path: pathlib.Path) -> None:
    ours, theirs = tmp_path / "client", tmp_path / "server"
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=0, capture=CaptureFile(str(theirs))) as server:
        use_the_card(f"usbip://127.0.0.1:{server.port}/?capture={ours}", tmp_path)
    for path in (ours, theirs):
        frames = dissect(path)
        assert_named(frames)
        assert (":usbip:usbccid:iso7816", "Verify") in frames
        assert (":usbip:usbccid:iso7816", "Response APDU (to Verify)") in frames
        assert (":usbip:usbccid:iso7816", "Select file") in frames
        assert PIN.encode() not in path.read_bytes()


def test_it_reads_what_went_through_tls(dissect: Dissect, tmp_path: pathlib.Path) -> None:
    authority = TlsAuthority(tmp_path)
    own, client = authority.issue("server", ip="127.0.0.1"), authority.issue("client")
    path = tmp_path / "capture"
    device = SimulatedUsbReader(open_card("netkey3"))
    with UsbIpServer([device], port=0, context=server_context(own)) as server:
        files = f"cert={client.certificate}&key={client.key}&ca={client.ca}"
        use_the_card(f"usbips://127.0.0.1:{server.port}/?{files}&capture={path}", tmp_path)
    frames = dissect(path)
    assert_named(frames)
    assert (":usbip:usbccid:iso7816", "Verify") in frames
    assert PIN.encode() not in path.read_bytes()


def test_it_reads_the_messages_of_a_reader_with_blocks(dissect: Dissect, tmp_path: pathlib.Path) -> None:
    """What is in a T=1 block TShark does not know."""
    path = tmp_path / "capture"
    device = SimulatedUsbReader(open_card("netkey3"), profile=reader_profile("tpdu"))
    with UsbIpServer([device], port=0, capture=CaptureFile(str(path))) as server:
        use_the_card(f"usbip://127.0.0.1:{server.port}/", tmp_path)
    blocks = [info for protocols, info in dissect(path) if ":usbccid" in protocols]
    assert "CCID Packet - PC to Reader: Set Parameters" in blocks
    assert PIN.encode() not in path.read_bytes()
