"""Every status word to every command: success is what the standard says, and nothing with a PIN goes out twice."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest

from demail_hw.errors import (
    CardError,
    HardwareError,
    Outcome,
    PinBlocked,
    PinIncorrect,
    PinNotInitialized,
)
from demail_hw.interfaces import PinOperation
from demail_hw.iso7816.apdu import CommandApdu
from demail_hw.iso7816.channel import Channel
from demail_hw.secrets import Pin, PinPermit
from demail_hw.tcos import commands
from demail_hw.tcos.card import PinState, PinStatus, TcosCard
from demail_hw.tcos.layout import PinName
from demail_hw.tcos.netkey import NKS
from demail_hw.tcos.profiles import NETKEY3
from demail_hw.tcos.recognition import recognise
from permits import permit

DEADLINE = 99.0
ATR = "3BBF96008131FE5D00640411030131C073F701D00090007D"
GLOBAL, PUK = NETKEY3.pin(PinName.GLOBAL), NETKEY3.pin(PinName.PUK)
SIGNATURE, DECRYPTION = NETKEY3.keys[0], NETKEY3.keys[1]
EF_GDO = bytes.fromhex("5a0a89490173510012345678")
EF_SIZE = bytes.fromhex("620480020800")
NORMAL = 0x9000
MORE_DATA = frozenset(range(0x6100, 0x6200))
GARBAGE = (0x0000, 0x0001, 0x00FF, 0x0090, 0x5FFF, 0x7000, 0x8FFF, 0xA000, 0xFFFF)
STATUS_WORDS = (*range(0x6000, 0x7000), *range(0x9000, 0xA000), *GARBAGE)
MOST_COMMANDS = 8


def leave(operation: PinOperation = PinOperation.VERIFY, *more: Pin) -> PinPermit:
    return permit(GLOBAL.reference, Pin(b"123456"), *more, operation=operation)


class Probe(NamedTuple):
    """``builder``: the command's name in commands.py; ``header``: how it begins; ``use``: what sends it.

    ``successes``: the status words after which it is done.
    """

    builder: str
    header: str
    use: Callable[[TcosCard], object]
    successes: frozenset[int] = frozenset({NORMAL})

    def __str__(self) -> str:
        return f"{self.builder} {self.header}"


# 61xx is normal processing too: of a command that expects data it is followed up, and this card never ends it.
WITHOUT_DATA = frozenset({NORMAL}) | MORE_DATA

PROBES = (
    Probe("select_master_file", "00a4000c", lambda card: card.serial_number(deadline=DEADLINE), WITHOUT_DATA),
    Probe("select_elementary_file", "00a4020c", lambda card: card.serial_number(deadline=DEADLINE), WITHOUT_DATA),
    Probe(
        "select_application", "00a4040c", lambda card: card.read_file(NKS, 0xC000, deadline=DEADLINE), WITHOUT_DATA
    ),
    Probe(
        "read_binary",
        "00b0",
        lambda card: card.read_file(NKS, 0xC000, deadline=DEADLINE),
        frozenset({NORMAL, 0x6282, 0x6B00}),
    ),
    Probe(
        "read_record", "00b2", lambda card: card.read_public_key(NKS, SIGNATURE.public_key_file, deadline=DEADLINE)
    ),
    Probe(
        "select_for_control_parameters",
        "00a40204",
        lambda card: card.open_file(NKS, 0x4331, deadline=DEADLINE),
    ),
    Probe(
        "update_binary",
        "00d6",
        lambda card: card.open_file(NKS, 0x4331, deadline=DEADLINE).update(0, b"\xff", deadline=DEADLINE),
        WITHOUT_DATA,
    ),
    Probe("verify", "00200000", lambda card: card.verify(GLOBAL, leave(), deadline=DEADLINE)),
    Probe(
        "change_reference_data",
        "00240000",
        lambda card: card.change(GLOBAL, leave(PinOperation.CHANGE, Pin(b"654321")), deadline=DEADLINE),
    ),
    Probe(
        "reset_retry_counter",
        "002c0000",
        lambda card: card.unblock(GLOBAL, PUK, leave(PinOperation.UNBLOCK, Pin(b"654321")), deadline=DEADLINE),
    ),
    Probe(
        "manage_security_environment", "0022", lambda card: card.prepare(SIGNATURE, deadline=DEADLINE), WITHOUT_DATA
    ),
    Probe(
        "compute_digital_signature",
        "002a9e9a",
        lambda card: card.compute_digital_signature(SIGNATURE, bytes(51), deadline=DEADLINE),
    ),
    Probe("decipher", "002a8086", lambda card: card.decipher(DECRYPTION, bytes(256), deadline=DEADLINE)),
)


class Card:
    """Answers ``status`` to the command under test and to GET RESPONSE, and is content with every other."""

    def __init__(self, header: str) -> None:
        self._header = bytes.fromhex(header)
        self.status = NORMAL

    def answer(self, command: bytes) -> bytes:
        tested = command.startswith(self._header) or command[1] == 0xC0
        status = self.status if tested else NORMAL
        answers_size = command.startswith(b"\x00\xa4\x02\x04") and status == NORMAL
        data = EF_SIZE if answers_size else EF_GDO if command[1] == 0xB0 and not tested else b""
        return data + status.to_bytes(2, "big")


def outcomes(scripted, header: str, use: Callable[[TcosCard], object]) -> Iterable[tuple[int, HardwareError | None]]:
    """Each status word with what comes of it; never more than a few commands."""
    answers = Card(header)
    connection = scripted(answers.answer, atr=ATR)
    channel = Channel(connection)
    for status in STATUS_WORDS:
        answers.status = status
        connection.sent.clear()
        error = None
        try:
            use(TcosCard(connection, NETKEY3, channel=channel))
        except HardwareError as caught:
            error = caught
        assert len(connection.sent) <= MOST_COMMANDS
        assert any(command.startswith(header) for command in connection.sent)
        yield status, error


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_only_success_is_success(scripted, probe: Probe) -> None:
    done = {status for status, error in outcomes(scripted, probe.header, probe.use) if error is None}
    assert done == probe.successes


def test_the_table_holds_every_command() -> None:
    assert {probe.builder for probe in PROBES} | {"pin_status"} == set(commands.__all__)


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_the_outcome_is_what_the_status_word_proves(scripted, probe: Probe) -> None:
    nothing_done = {0x64, *range(0x67, 0x6F)}
    named = 0
    for status, error in outcomes(scripted, probe.header, probe.use):
        if type(error) is CardError:
            named += 1
            assert error.status == status
            assert f"({status:04X})" in error.message
            assert (error.outcome is Outcome.REFUSED) == (status >> 8 in nothing_done)
    assert named > 0x1800


def test_recognition_takes_success_alone(scripted) -> None:
    answers = Card("00a4040c")
    for status in STATUS_WORDS:
        answers.status = status
        connection = scripted(answers.answer, atr=ATR)
        try:
            found = recognise(Channel(connection), deadline=DEADLINE)
        except HardwareError:
            found = None
        assert (found is NETKEY3) == (status in WITHOUT_DATA), f"{status:04X}"
        assert len(connection.sent) <= 2


# --- PINs

NAMED = {
    0x63C0: PinBlocked,
    0x6983: PinBlocked,
    0x6985: PinNotInitialized,
    **{0x63C0 + left: PinIncorrect for left in range(1, 16)},
}


def test_each_answer_to_verify_has_its_name_and_none_a_second_try(scripted) -> None:
    answers = Card("00200000")
    connection = scripted(answers.answer, atr=ATR)
    for status in STATUS_WORDS:
        answers.status = status
        connection.sent.clear()
        card = TcosCard(connection, NETKEY3)
        if status == NORMAL:
            card.verify(GLOBAL, leave(), deadline=DEADLINE)
        else:
            with pytest.raises(CardError) as caught:
                card.verify(GLOBAL, leave(), deadline=DEADLINE)
            assert isinstance(caught.value, NAMED.get(status, CardError))
            assert isinstance(caught.value, (PinIncorrect, PinBlocked, PinNotInitialized)) == (status in NAMED)
        assert card.is_verified(GLOBAL) == (status == NORMAL)
        assert [command[2:4] for command in connection.sent].count("20") == 1


def test_the_counter_in_an_answer_to_verify(scripted) -> None:
    for left in range(1, 16):
        connection = scripted(lambda command, left=left: bytes((0x63, 0xC0 + left)))
        with pytest.raises(PinIncorrect) as caught:
            TcosCard(connection, NETKEY3).verify(GLOBAL, leave(), deadline=DEADLINE)
        assert caught.value.retries_left == left


def test_each_answer_to_the_question_for_tries(scripted) -> None:
    states = {
        NORMAL: PinStatus(PinState.VERIFIED),
        0x6983: PinStatus(PinState.BLOCKED, 0),
        0x6985: PinStatus(PinState.NULL_PIN),
        0x6A80: PinStatus(PinState.ABSENT),
        0x6A88: PinStatus(PinState.ABSENT),
        0x63C0: PinStatus(PinState.BLOCKED, 0),
        **{0x63C0 + left: PinStatus(PinState.READY, left) for left in range(1, 16)},
    }
    answers = Card("0020")
    connection = scripted(answers.answer)
    card = TcosCard(connection, NETKEY3)
    for status in STATUS_WORDS:
        answers.status = status
        connection.sent.clear()
        assert card.pin_status(GLOBAL, deadline=DEADLINE) == states.get(status, PinStatus(PinState.UNREADABLE))
        assert connection.sent[0] == "00200000"


@pytest.mark.parametrize(("instruction", "name"), [(0x20, "VERIFY"), (0x24, "CHANGE"), (0x2C, "RESET RETRY COUNTER")])
@pytest.mark.parametrize("ne", [0, 256])
def test_no_pin_is_ever_sent_twice(scripted, instruction: int, name: str, ne: int) -> None:
    answers = Card(f"00{instruction:02x}")
    connection = scripted(answers.answer)
    channel = Channel(connection)
    command = CommandApdu(0x00, instruction, 0x00, 0x00, (b"123456",), ne, name)
    for status in STATUS_WORDS:
        answers.status = status
        connection.sent.clear()
        try:
            channel.send(command, deadline=DEADLINE)
        except HardwareError:
            assert status in MORE_DATA
        assert sum("313233343536" in sent for sent in connection.sent) == 1
        assert len(connection.sent) <= 2
