"""The inventory packet: round trips, and any bytes that a network may bring."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from demail_hw.cli.usb_server import _inventory_facts, _inventory_text
from demail_hw.wut.inventory import HEADER_SIZE, PORT_SIZE, InfoHeader, InfoPacket, PortEntry, read_inventory

WORD = st.integers(0, 0xFFFF)
BYTE = st.integers(0, 0xFF)
ADDRESS = st.ip_addresses(v=4).map(lambda each: ipaddress.IPv4Address(str(each)))
MAC = st.binary(min_size=3, max_size=3).map(lambda tail: b"\x00\xc0\x3d" + tail)
HEADERS = st.builds(
    InfoHeader,
    software=WORD,
    hardware=WORD,
    mac=MAC,
    ip=ADDRESS,
    gateway=ADDRESS,
    mask=ADDRESS,
    mtu=WORD,
    port_count=WORD,
    reserved=st.binary(min_size=4, max_size=4),
)
PORTS = st.builds(PortEntry, BYTE, BYTE, WORD, ADDRESS, WORD)
PACKETS = st.builds(InfoPacket, HEADERS, st.lists(PORTS, max_size=5).map(tuple))


@given(PACKETS)
def test_a_packet_comes_back(packet: InfoPacket) -> None:
    found = read_inventory(packet.encode())
    assert found.header is not None
    assert InfoPacket(found.header, found.ports).encode() == packet.encode()
    assert found.ports == packet.ports
    assert found.remarks == ()


@given(PACKETS, WORD, st.data())
def test_a_wrong_count_or_a_cut_is_told(packet: InfoPacket, count: int, data: st.DataObject) -> None:
    whole = packet.encode()
    lying = whole[:30] + count.to_bytes(2, "little") + whole[32:]
    cut = lying[: data.draw(st.integers(0, len(lying)))]
    found = read_inventory(cut)
    honest = len(cut) >= HEADER_SIZE and len(cut) - HEADER_SIZE == count * PORT_SIZE
    assert bool(found.remarks) is not honest
    assert found.ports == packet.ports[: len(found.ports)]
    assert len(found.ports) <= count


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda tail: b"\x10\x00" + tail)))
def test_any_bytes_are_kept_and_can_be_shown(data: bytes) -> None:
    found = read_inventory(data)
    assert found.raw == data
    assert len(found.ports) <= len(data) // PORT_SIZE
    assert all(line.isprintable() for line in _inventory_text(found).splitlines())
    assert _inventory_facts(found)["raw"] == data.hex()
