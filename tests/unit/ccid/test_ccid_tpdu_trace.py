"""What pcscd with libccid sent to readers of the TPDU level, byte for byte from our host, with no socket between."""

import dataclasses
from collections.abc import Generator, Iterator
from functools import reduce
from operator import xor
from typing import NamedTuple, TypeVar

import pytest

from demail_hw.ccid.activation import activate
from demail_hw.ccid.class_descriptor import CcidDescriptor, Features
from demail_hw.ccid.exchange_levels import ExtendedApduLevel, Level
from demail_hw.ccid.host import CcidHost, NeedData, TimeExtension
from demail_hw.ccid.messages import Command, DataBlock, Response, decode_command
from demail_hw.ccid.tpdu_levels import T1Level
from demail_hw.iso7816.atr import Atr, Checksum
from demail_hw.iso7816.limits import EXTENDED_LIMITS
from demail_hw.iso7816.t1 import T1
from demail_hw_simulators.ccid_device import UTRUST_2700F
from recorded_ccid import Line, read_trace

MORE = 0x20
Done = TypeVar("Done")


class Profile(NamedTuple):
    trace: str
    features: int
    ifsd: int


TPDU = Profile("tpdu", 0x000100BA, 252)
PROFILES = [TPDU, Profile("tpdu-auto-ifsd", 0x000104BA, 254), Profile("tpdu-host-pps", 0x00010230, 254)]


def descriptor_of(profile: Profile) -> CcidDescriptor:
    features = Features(profile.features)
    return dataclasses.replace(
        UTRUST_2700F.descriptor, features=features, max_message_length=271, max_ifsd=profile.ifsd
    )


def restore(to_reader: bool, header: bytes, data: bytes) -> bytes:
    """A block of which the recorder kept the first bytes: one byte goes on, then Le or the status word, then LRC."""
    length = int.from_bytes(header[1:5], "little")
    if length == len(data):
        return header + data
    end = b"" if data[1] & MORE else b"\0\0" if to_reader else b"\x90\0"
    block = data + data[-1:] * (length - len(data) - len(end) - 1) + end
    return header + block + bytes((reduce(xor, block),))


class Replay:
    """A host that is answered as recorded, and has to send what was recorded."""

    def __init__(self, trace: str) -> None:
        self._lines: Iterator[Line] = iter(read_trace(trace, restore))
        self._host = CcidHost(max_message_length=1034, packet_size=64)
        self._next = next(self._lines)

    def skip_to(self, *names: str) -> Response:
        """Send what was recorded, up to the first of these commands; the response to it."""
        while True:
            name, (_, command) = self._next.name, decode_command(self._next.message)
            response = self.run(command)
            if name in names:
                return response

    def skip_status(self) -> None:
        """Send the GetSlotStatus that libccid sends now and then."""
        while self._next.name == "GetSlotStatus":
            self.run(decode_command(self._next.message)[1])

    def run(self, command: Command) -> Response:
        assert b"".join(self._host.send(command)).hex() == self._next.message.hex()
        event: object = TimeExtension(1)
        while isinstance(event, (TimeExtension, NeedData)):
            self._host.receive_data(next(self._lines).message)
            event = self._host.next_event()
        self._next = next(self._lines, Line(to_reader=False, name="", message=b""))
        assert not isinstance(event, (TimeExtension, NeedData))
        return event  # type: ignore[return-value]

    def drive(self, steps: Generator[Command, Response, Done]) -> Done:
        try:
            command = next(steps)
            while True:
                command = steps.send(self.run(command))
        except StopIteration as done:
            returned: Done = done.value
            return returned

    def exchange(self, level: Level, *command: bytes) -> bytes:
        exchange = level.exchange(command)
        try:
            block = next(exchange)
            while True:
                response = self.run(block)
                assert isinstance(response, DataBlock)
                block = exchange.send(response)
        except StopIteration as done:
            answer: bytes = done.value
            return answer


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.trace)
def test_tpdu_level_sends_what_libccid_sent(profile: Profile) -> None:
    replay = Replay(profile.trace)
    powered = replay.skip_to("IccPowerOn")
    assert isinstance(powered, DataBlock)
    replay.skip_status()
    level = replay.drive(activate(descriptor_of(profile), Atr.decode(powered.data)))
    assert level.limits == EXTENDED_LIMITS
    assert replay.exchange(level, b"\0\xa4\4\0") == b"\x90\0"
    assert replay.exchange(level, b"\0\xb0\0\0\0") == bytes(256) + b"\x90\0"
    for length in (300, 1100, 3000):
        head = b"\0\xee\0\0\0" + length.to_bytes(2, "big")
        assert replay.exchange(level, head, b"\1" * length, b"\0\0") == b"\1" * length + b"\x90\0"
    assert replay.exchange(level, b"\0\xd0\0\0") == b"\x90\0"  # Two time extensions of the reader.
    assert replay.exchange(level, b"\0\xd1\0\0") == b"\x90\0"  # S(WTX request) with the multiplier 3.
    assert replay.exchange(level, b"\0\xc0\0\0\0") == b"\x90\0"
    assert replay.exchange(level, b"\0\xc0\0\0\0") == b"\x90\0"


def test_t0_card_at_the_extended_apdu_level_is_set_up_as_libccid_does() -> None:
    replay = Replay("t0-ext-apdu")
    powered = replay.skip_to("IccPowerOn")
    assert isinstance(powered, DataBlock)
    replay.skip_status()
    level = replay.drive(activate(UTRUST_2700F.descriptor, Atr.decode(powered.data)))
    assert isinstance(level, ExtendedApduLevel)
    assert replay.exchange(level, bytes.fromhex("00a40000023f00")) == b"\x90\0"
    assert replay.exchange(level, bytes.fromhex("00b0000004")) == bytes(4) + b"\x90\0"


def test_command_travels_in_its_own_buffers() -> None:
    secret = bytearray(b"12345678")
    block = next(T1Level(T1(ifsc=8, checksum=Checksum.LRC)).exchange((b"\0\x20\0\0\x08", secret)))
    secret[:] = bytes(8)
    assert b"".join(block.data)[3:11] == b"\0\x20\0\0\x08\0\0\0"
