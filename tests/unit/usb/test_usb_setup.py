"""Setup packets (USB 2.0, 9.3)."""

import pytest

from demail_hw.errors import ProtocolViolation
from demail_hw.usb.setup import (
    Recipient,
    RequestKind,
    SetupPacket,
    clear_endpoint_halt,
    get_descriptor,
    set_configuration,
)


@pytest.mark.parametrize(
    ("packet", "encoded"),
    [
        (get_descriptor(1, 0, 18), "80 06 00 01 00 00 12 00"),
        (get_descriptor(3, 2, 255, language=0x0409), "80 06 02 03 09 04 ff 00"),
        (set_configuration(1), "00 09 01 00 00 00 00 00"),
        (clear_endpoint_halt(0x82), "02 01 00 00 82 00 00 00"),
    ],
)
def test_the_usual_requests(packet: SetupPacket, encoded: str) -> None:
    assert packet.encode() == bytes.fromhex(encoded)
    assert SetupPacket.decode(bytes.fromhex(encoded)) == packet


def test_request_type_is_direction_kind_and_recipient() -> None:
    abort = SetupPacket(0x21, 0x01, 0x0500, 0, 0)

    assert not abort.direction_in
    assert abort.kind is RequestKind.CLASS
    assert abort.recipient == Recipient.INTERFACE
    assert SetupPacket(0xC0, 1).direction_in
    assert SetupPacket(0xC0, 1).kind is RequestKind.VENDOR


@pytest.mark.parametrize("size", [0, 7, 9])
def test_a_setup_packet_has_8_bytes(size: int) -> None:
    with pytest.raises(ProtocolViolation):
        SetupPacket.decode(bytes(size))


@pytest.mark.parametrize("fields", [(256, 0), (0, 256), (0, 0, 65536), (0, 0, 0, -1), (0, 0, 0, 0, 65536)])
def test_fields_are_one_or_two_bytes(fields: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        SetupPacket(*fields)
