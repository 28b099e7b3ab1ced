"""The inventory packet, byte by byte after the manual, and what is made of one that is broken."""

import ipaddress

import pytest

from demail_hw.errors import ProtocolViolation
from demail_hw.wut.inventory import (
    InfoHeader,
    InfoPacket,
    PortEntry,
    PortState,
    PortType,
    read_inventory,
)

# version, software, hardware, reserved, MAC, IP 172.17.2.3, gateway 172.17.2.1, mask, MTU 1500, two ports
HEADER = "1000 0115 0600 00000000 00c03d000815 030211ac 010211ac 00ffffff dc05 0200"
PORTS = "02 01 0100 050211ac 401f", "04 00 0000 00000000 0000"
PACKET = bytes.fromhex("".join((HEADER, *PORTS)))


def test_the_manuals_layout() -> None:
    found = read_inventory(PACKET)
    assert found.header == InfoHeader(
        software=0x1501,
        hardware=0x0006,
        mac=bytes.fromhex("00c03d000815"),
        ip=ipaddress.IPv4Address("172.17.2.3"),
        gateway=ipaddress.IPv4Address("172.17.2.1"),
        mask=ipaddress.IPv4Address("255.255.255.0"),
        mtu=1500,
        port_count=2,
    )
    assert found.ports == (
        PortEntry(PortType.UART, PortState.CONNECTED, 1, ipaddress.IPv4Address("172.17.2.5"), 8000),
        PortEntry(PortType.DIGITAL_IO, PortState.FREE),
    )
    assert (found.remarks, found.raw) == ((), PACKET)


def test_it_is_written_as_it_is_read() -> None:
    found = read_inventory(PACKET)
    assert found.header is not None
    assert InfoPacket(found.header, found.ports).encode() == PACKET


@pytest.mark.parametrize(
    ("code", "text"),
    [(0x0006, "6.0 Industry"), (0x0108, "8.1 Web-IO"), (0x0207, "7.2 (not known)")],
)
def test_the_hardware_in_words(code: int, text: str) -> None:
    assert InfoHeader.decode(PACKET[:4] + code.to_bytes(2, "little") + PACKET[6:32]).hardware_text == text


def test_words_of_a_port() -> None:
    port = PortEntry(PortType.DUAL_PORT_RAM, 9)
    assert (port.type_text, port.state_text) == ("dual port ram", "0x09 (not known)")


@pytest.mark.parametrize(
    ("data", "ports", "remark"),
    [
        (b"", 0, "It has 0 bytes"),
        (PACKET[:31], 0, "It has 31 bytes"),
        (b"\x11\x00" + PACKET[2:], 0, "version 0x0011"),
        (PACKET[:51], 1, "tells of 2 ports, and has bytes for 1"),
        (PACKET[:30] + b"\xff\xff" + PACKET[32:], 2, "tells of 65535 ports, and has bytes for 2"),
        (PACKET[:30] + b"\x01\x00" + PACKET[32:], 1, "10 bytes that nobody explains"),
        (PACKET[:10] + bytes(6) + PACKET[16:], 2, "none of W&T's"),
    ],
)
def test_what_is_broken_is_told_and_kept(data: bytes, ports: int, remark: str) -> None:
    found = read_inventory(data)
    assert len(found.ports) == ports
    assert len(found.remarks) == 1
    assert remark in found.remarks[0]
    assert found.raw == data


def test_the_strict_halves() -> None:
    with pytest.raises(ProtocolViolation, match="31 bytes and not 32"):
        InfoHeader.decode(PACKET[:31])
    with pytest.raises(ProtocolViolation, match="11 bytes and not 10"):
        PortEntry.decode(bytes(11))
    with pytest.raises(ValueError, match="6 bytes"):
        InfoHeader(1, 1, b"", *[ipaddress.IPv4Address(0)] * 3, mtu=0, port_count=0)
