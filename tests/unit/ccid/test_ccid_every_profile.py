"""Our host against the simulated reader in every profile, with a card that does T=1 or T=0 at the other end.

The two ends have only the codec of blocks in common. Faults of the line come from the simulator's own table; the
waits they bring are over at once.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demail_hw.ccid.reader import CcidConnection, CcidReader
from demail_hw.errors import DeadlineExceeded, HardwareError, Layer, Outcome
from demail_hw.interfaces import Deadline
from demail_hw.iso7816.apdu import CommandApdu
from demail_hw.iso7816.channel import Channel
from demail_hw.polling import pause
from demail_hw.transaction_lock import TransactionLock
from demail_hw_simulators.card_link import CardLine, CardLink
from demail_hw_simulators.card_link_faults import (
    AbortRequest,
    DroppedAnswer,
    DroppedBlock,
    ExtensionForEver,
    FaultyLink,
    LineFault,
    NoiseToCard,
    RepeatedAnswer,
    WrongEdc,
    WrongSendSequence,
)
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.loopback import LoopbackTransport
from demail_hw_simulators.reader_profiles import reader_profile, reader_profiles

T1_ATR = "3bff9600008131fe4380318065b0850300ef120fff82900019"
T0_ATR = "3b6800000073c84000009000"
T0_EXTENDED_ATR = "3b058073c00140"

Result = TypeVar("Result")

FAULTS = [
    AbortRequest(),
    DroppedAnswer(),
    DroppedBlock(),
    NoiseToCard(),
    RepeatedAnswer(),
    WrongEdc(),
    WrongSendSequence(),
]


class Card:
    """Returns the data that it is sent, and remembers every command that it did."""

    def __init__(self, atr: str) -> None:
        self._atr = bytes.fromhex(atr)
        self.done: list[CommandApdu] = []

    def power_on(self) -> bytes:
        return self._atr

    def power_off(self) -> None:
        pass

    def transmit(self, command: bytes) -> bytes:
        apdu = CommandApdu.decode(command)
        self.done.append(apdu)
        return b"".join(apdu.data) + b"\x90\0"


def at_once(_seconds: float, function: Callable[[], None]) -> Callable[[], None]:
    """No time passes before what was to come later."""
    function()
    return lambda: None


def soon() -> Deadline:
    return time.monotonic() + 20


def connect(card: Card, profile: str, link: Callable[[SimulatedCard], CardLink] = CardLine) -> CcidConnection:
    device = SimulatedUsbReader(card, profile=reader_profile(profile), later=at_once, link=link)
    return CcidReader(LoopbackTransport(device), lock=TransactionLock(), grace=soon, pause=pause).connect(
        deadline=soon()
    )


def command(number: int, length: int) -> CommandApdu:
    """No two are alike."""
    data = number.to_bytes(2, "big") * (length // 2)
    return CommandApdu(0, 0xEE, 0, 0, (data,), len(data))


def send(connection: CcidConnection, apdu: CommandApdu) -> bytes:
    with connection.transaction(deadline=soon()):
        return Channel(connection).send(apdu, deadline=soon()).encode()


@pytest.mark.parametrize("atr", [T1_ATR, T0_ATR, T0_EXTENDED_ATR])
@pytest.mark.parametrize("profile", reader_profiles())
def test_apdus_of_every_length_pass(profile: str, atr: str) -> None:
    card = Card(atr)
    connection = connect(card, profile)
    lengths = [2, 100, 240, 252, 254]
    if connection.limits.extended:
        lengths += [256, 300, 1100, 3000]
    for number, length in enumerate(lengths):
        apdu = command(number, length)
        assert send(connection, apdu) == b"".join(apdu.data) + b"\x90\0"
    assert [apdu.nc for apdu in card.done] == lengths


@pytest.mark.parametrize("profile", reader_profiles())
def test_card_is_reset_and_goes_on(profile: str) -> None:
    card = Card(T1_ATR)
    connection = connect(card, profile)
    assert send(connection, command(1, 10))[-2:] == b"\x90\0"
    with connection.transaction(deadline=soon()):
        connection.reset(deadline=soon())
    assert send(connection, command(2, 10))[-2:] == b"\x90\0"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("profile", ["tpdu", "tpdu_auto_ifsd", "host_pps"])
@given(
    after=st.integers(0, 14),
    times=st.integers(1, 10),
    lengths=st.lists(st.sampled_from([2, 250, 300, 1100]), min_size=1, max_size=3),
)
def test_command_is_done_once_or_nobody_knows(
    profile: str, fault: LineFault, after: int, times: int, lengths: list[int]
) -> None:
    card = Card(T1_ATR)

    def link(simulated: SimulatedCard) -> CardLink:
        return FaultyLink(CardLine(simulated), fault, after=after, times=times)

    connection = attempt(lambda: connect(card, profile, link))
    if isinstance(connection, HardwareError):
        assert not card.done
        return
    for number, length in enumerate(lengths):
        apdu = command(number, length)
        response = attempt(lambda apdu=apdu: send(connection, apdu))  # type: ignore[misc]
        assert len(card.done) in (number, number + 1)
        if isinstance(response, HardwareError):
            assert response.outcome is Outcome.UNKNOWN
            assert not connection.alive
            return
        assert response == b"".join(apdu.data) + b"\x90\0"
        assert card.done[number].data == (b"".join(apdu.data),)


def attempt(action: Callable[[], Result]) -> Result | HardwareError:
    try:
        return action()
    except HardwareError as error:
        return error


@pytest.mark.parametrize("fault", FAULTS[1:], ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("after", range(4, 12))
def test_one_fault_on_the_line_is_healed(fault: LineFault, after: int) -> None:
    card = Card(T1_ATR)
    connection = connect(card, "tpdu", lambda simulated: FaultyLink(CardLine(simulated), fault, after=after))
    for number in range(4):
        apdu = command(number, 600)
        assert send(connection, apdu) == b"".join(apdu.data) + b"\x90\0"
    assert len(card.done) == 4


@pytest.mark.parametrize("profile", ["tpdu", "tpdu_auto_ifsd", "host_pps"])
def test_card_that_asks_for_time_for_ever_is_given_up_at_the_deadline(profile: str) -> None:
    card = Card(T1_ATR)
    device = SimulatedUsbReader(
        card,
        profile=reader_profile(profile),
        later=at_once,
        link=lambda simulated: FaultyLink(CardLine(simulated), ExtensionForEver(), after=3),
    )
    reader = CcidReader(LoopbackTransport(device), lock=TransactionLock(), grace=soon, pause=pause)
    connection = reader.connect(deadline=soon())
    assert send(connection, command(1, 10))[-2:] == b"\x90\0"
    with connection.transaction(deadline=soon()), pytest.raises(DeadlineExceeded, match="more time") as caught:
        connection.transmit(command(2, 10).encode(), deadline=time.monotonic() + 0.1)
    assert (caught.value.layer, caught.value.outcome) == (Layer.CARD, Outcome.UNKNOWN)
    assert not connection.alive
    assert send(reader.connect(deadline=soon()), command(3, 10))[-2:] == b"\x90\0"
    assert len(card.done) == 3
