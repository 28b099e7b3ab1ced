"""A trace against a card."""

import time
from collections.abc import Sequence

import pytest

from demail_hw.errors import CardMute
from demail_hw.interfaces import Buffers, CardLimits
from demail_hw.iso7816.apdu import SECRET_INSTRUCTIONS
from demail_hw.iso7816.command_names import CommandView
from demail_hw.iso7816.limits import EXTENDED_LIMITS
from demail_hw.iso7816.trace import Recorder, Trace
from demail_hw.traces.comparison import Comparison, Difference, Skipped, compare
from demail_hw.transaction_lock import TransactionLock

ATR = "3b00"


class Card:
    """A connection that answers as told, and keeps what it got."""

    def __init__(self, answers: Sequence[str | Exception], *, limits: CardLimits = EXTENDED_LIMITS) -> None:
        self.atr = bytes.fromhex(ATR)
        self.epoch = 0
        self.limits = limits
        self.got: list[str] = []
        self.transaction = TransactionLock().hold
        self._answers = iter(answers)

    def transmit(self, command: Buffers, *, deadline: float) -> bytes:
        self.got.append(b"".join(command).hex())
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return bytes.fromhex(answer)

    def reset(self, *, deadline: float) -> None:
        self.epoch += 1
        self.got.append("reset")

    def close(self) -> None:
        raise AssertionError("it belongs to who opened it")


def run(text: str, card: Card, recorder: Recorder | None = None, *, use_keys: bool = False) -> Comparison:
    deadline = time.monotonic() + 20
    return compare(Trace.parse(text), card, lambda: deadline, use_keys=use_keys, tracer=recorder)


def test_a_card_that_answers_as_recorded() -> None:
    card = Card(["9000", "5a006282"])
    assert run("> 00a4000c\n<  9000\n> 00b0000000\n< 5a00 6282", card) == Comparison(2, (), ())
    assert card.got == ["00a4000c", "00b0000000"]


def test_a_card_that_answers_otherwise() -> None:
    card = Card(["6a82", "5a006282"])
    found = run("> 00a4000c023f00\n<  9000\n> 00b0000000\n< 5a00 6282", card)
    assert found == Comparison(2, (Difference(1, "SELECT MF", "9000", "6a82"),), ())


def test_another_atr_is_a_difference() -> None:
    found = run("# connected ATR 3b01\n> 00a4000c\n<  9000", Card(["9000"]))
    assert found.differences == (Difference(2, "answer to reset", "3b01", "3b00"),)
    assert run("> 00a4000c\n<  9000", Card(["9000"])).differences == ()


def test_of_what_is_masked_the_length_counts() -> None:
    text = "> 002a808601aa00\n< **** 9000"
    assert run(text, Card(["12349000"]), use_keys=True).differences == ()
    assert len(run(text, Card(["129000"]), use_keys=True).differences) == 1
    assert len(run(text, Card(["12346982"]), use_keys=True).differences) == 1


@pytest.mark.parametrize(
    ("text", "answers", "shown"),
    [
        ("> 002a808601aa00\n< **** 9000", ["1234569000"], ["******9000"]),
        ("> 002a808601aa00\n< 0000 9000", ["12349000"], ["****9000"]),  # whoever wrote the trace is told nothing
        ("> 002a808601aa00\n< 6102\n> 00c0000002\n< 0000 9000", ["6102", "12349000"], ["****9000"]),
        ("> 00b0000002\n< **** 9000", ["129000"], ["**9000"]),
        ("> 002a808601aa00\n< **** 9000", ["6982"], ["6982"]),
    ],
)
def test_what_the_card_deciphers_is_not_told(text: str, answers: list[str], shown: list[str]) -> None:
    found = run(text, Card(answers), use_keys=True)
    assert [each.got for each in found.differences] == shown


@pytest.mark.parametrize("ins", range(256))
@pytest.mark.parametrize("data", ["", "0531323334" + "35"])
def test_nothing_is_sent_that_carries_a_pin_or_may_change_the_card(ins: int, data: str) -> None:
    harmless = {0xA4, 0xB0, 0xB1, 0xB2, 0xB3, 0xCA, 0xCB, 0xC0, 0x84} | (set() if data else {0x20})
    for cla in ("00", "01", "80", "ff"):
        card = Card(["9000"])
        found = run(f"> {cla}{ins:02x}0081{data}\n<  9000", card)
        allowed = ins in harmless and cla in ("00", "01")
        assert (len(card.got), len(found.skipped)) == ((1, 0) if allowed else (0, 1))
        if data and ins in SECRET_INSTRUCTIONS:
            assert found.skipped[0].why == "it may carry a PIN"


CHANGES = "it may change the card"
KEY = "it uses a key"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("002281b603840180", ""),  # MSE: SET
        ("002241a403840180", ""),
        ("0022c1b803840180", ""),
        ("00220101", CHANGES),  # of no template
        ("0022f201", CHANGES),  # STORE
        ("0022f301", CHANGES),  # RESTORE
        ("0022f401", CHANGES),  # ERASE
        ("00200081", ""),
        ("0020ff81", CHANGES),  # ends what the PIN opened
        ("00210081", CHANGES),
        ("002a9e9a02aabb00", KEY),
        ("002a9eac02aabb00", KEY),
        ("002a808602aabb00", KEY),
        ("012a808602aabb00", KEY),
        ("0088000002aabb00", KEY),
        ("002a00be02aabb", CHANGES),  # VERIFY CERTIFICATE: takes a public key in
        ("002a90a002aabb", CHANGES),
        ("002a868002aabb00", CHANGES),
        ("002b808602aabb00", CHANGES),
        ("802a808602aabb00", CHANGES),
        ("80a4000c", CHANGES),
        ("00c200000400200081", "it may carry a PIN"),  # ENVELOPE
    ],
)
def test_what_is_sent_hangs_on_p1_and_p2_too(command: str, why: str) -> None:
    for use_keys in (False, True):
        card, refused = Card(["9000"]), why and not (use_keys and why == KEY)
        found = run(f"> {command}\n<  9000", card, use_keys=use_keys)
        assert card.got == ([] if refused else [command])
        assert [each.why for each in found.skipped] == ([why] if refused else [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("> 0020008106************", "it may carry a PIN"),
        ("> 0020008107****", "it may carry a PIN"),
        ("> 00d60000013f", "it may change the card"),
        ("> 00a4000c053f00", "it is malformed"),
        ("> 00a4", "it is malformed"),
        ("> 00b0000000007f", "it is too long for this reader"),
    ],
)
def test_why_a_command_is_not_sent(line: str, why: str) -> None:
    card = Card(["9000"], limits=CardLimits(False, 6, 258))
    found = run(f"{line}\n<  9000\n> 00b0000000\n<  9000", card)
    (skipped,) = found.skipped
    assert (skipped.line, skipped.why) == (1, why)
    assert card.got == ["00b0000000"]


def test_what_was_not_answered_is_not_sent_again() -> None:
    card = Card([])
    assert run("> 00a4000c023f00\n# no answer: CardMute", card).skipped == (
        Skipped(1, "SELECT MF", "no answer was recorded"),
    )


def test_the_card_is_reset_where_it_was() -> None:
    card = Card(["9000", "9000"])
    run("> 00a4000c\n<  9000\n# connected ATR 3b00\n> 00a4000c\n<  9000", card)
    assert card.got == ["00a4000c", "reset", "00a4000c"]


def test_the_first_error_ends_it() -> None:
    card = Card(["6a82", CardMute("Nothing came."), "9000"])
    found = run("> 00a4000c023f00\n<  9000\n" * 3, card)
    assert found.sent == 1
    assert found.differences == (
        Difference(1, "SELECT MF", "9000", "6a82"),
        Difference(3, "SELECT MF", "9000", failure="Nothing came."),
    )


def test_it_can_be_traced_itself() -> None:
    recorder = Recorder()
    run("> 00a4000c\n<  9000", Card(["6a82"]), recorder)
    assert [entry.response for entry in recorder.recorded().entries] == ["6a82"]
    assert CommandView.of("00a4000c") is not None


def test_an_empty_trace() -> None:
    assert run("", Card([])) == Comparison(0, (), ())
