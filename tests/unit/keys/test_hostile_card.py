"""A card that answers garbage, at every point from its opening to a signature: a typed error or the right result.

It never costs a second PIN, and never an endless talk.
"""

import random
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from demail_hw import KeyRole, Timeouts
from demail_hw.errors import HardwareError, Layer
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.provider import TcosKeyProvider
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.sim_reader import SimulatedReader

OK = b"\x90\x00"
VERIFY, GET_RESPONSE = 0x20, 0xC0
MOST_COMMANDS = 4000

GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda answer: b"",
    "one byte": lambda answer: b"\x90",
    "a lone status": lambda answer: OK,
    "one byte less": lambda answer: answer[:-3] + OK,
    "one byte more": lambda answer: answer[:-2] + b"\xaa" + OK,
    "64 KiB": lambda answer: bytes(65535),
    "zeros": lambda answer: bytes(len(answer) - 2) + OK,
    "ones": lambda answer: b"\xff" * (len(answer) - 2) + OK,
    "noise": lambda answer: random.Random(len(answer)).randbytes(len(answer) - 2) + OK,
    "61xx": lambda answer: answer[:-2] + b"\x61\x10",
    "6100 for ever": lambda answer: b"\x61\x00",
    "6Cxx": lambda answer: b"\x6c\x10",
    "length too great": lambda answer: b"\x30\x82\xff\xff" + answer[4:-2][:200] + OK,
    "length over 64 KiB": lambda answer: b"\x30\x83\x01\x00\x00" + answer[5:-2][:200] + OK,
    "length of 5 bytes": lambda answer: b"\x30\x85\x00\x00\x00\x00\x10" + bytes(16) + OK,
    "indefinite length": lambda answer: b"\x30\x80" + bytes(32) + OK,
    "nested 64 deep": lambda answer: b"".join(bytes((0x30, 2 * inside)) for inside in reversed(range(64))) + OK,
}


class Hostile:
    """A good card whose answers from number ``first`` on are ``garbage``, for ``times`` commands."""

    def __init__(self, card: SimulatedCard, first: int, garbage: Callable[[bytes], bytes], times: int) -> None:
        self._card = card
        self._turns = range(first, first + times)
        self._garbage = garbage
        self.commands = 0
        self.pins = 0

    def power_on(self) -> bytes:
        return self._card.power_on()

    def power_off(self) -> None:
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        turn, self.commands = self.commands, self.commands + 1
        assert self.commands < MOST_COMMANDS
        self.pins += command[1] == VERIFY and len(command) > 5
        answer = self._card.transmit(command)
        return self._garbage(answer) if turn in self._turns else answer


def talk(card: SimulatedCard) -> bytes:
    """Open it, and sign once."""
    reader = SimulatedReader(card)
    connection = reader.connect(deadline=time.monotonic() + 30)
    try:
        session = CardSession(reader, connection, timeouts=Timeouts())
        provider = TcosKeyProvider(session, CallablePinSource(lambda: b"123456"), ledger=MemoryPinLedger())
        key = provider.identity(KeyRole.SIGNATURE).private_key
        assert isinstance(key, rsa.RSAPrivateKey)
        return key.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    finally:
        connection.close()


def talk_or_error(card: SimulatedCard) -> bytes | HardwareError:
    try:
        return talk(card)
    except HardwareError as error:
        return error


def good_talk() -> tuple[bytes, int]:
    card = Hostile(open_card("netkey3"), 0, GARBAGE["nothing"], times=0)
    return talk(card), card.commands


SIGNATURE, COMMANDS = good_talk()


@pytest.mark.parametrize(("times", "step"), [(1, 1), (10_000, 4)], ids=["once", "from then on"])
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_every_answer_may_be_garbage(garbage: Callable[[bytes], bytes], times: int, step: int) -> None:
    results = []
    for first in range(0, COMMANDS, step):
        card = Hostile(open_card("netkey3"), first, garbage, times)
        results.append(talk_or_error(card))
        assert card.pins <= 1
    errors = [result for result in results if isinstance(result, HardwareError)]
    assert all(result == SIGNATURE for result in results if isinstance(result, bytes))
    assert {error.layer for error in errors} <= {Layer.CARD, Layer.KEYS}
    assert not any("123456" in f"{error!r} {error}" for error in errors)
    assert errors


def test_a_clean_talk_takes_few_commands() -> None:
    """So that the loop above sees every one of them."""
    assert 20 < COMMANDS < 100
