"""No fault costs more than one try of a PIN: the rows F68 to F70, F72, F74 and F80 to F96 of the table of faults, by
number; F73 is in tests/unit/keys/test_validity.py, F93 in test_pin_nowhere.py and test_pin_memory.py, F94 in
test_growth.py. F60 to F67 are in tests/real (PC/SC) and in tests/unit/keys/test_same_card.py.

The card is in another process than who uses it, behind USB/IP, and counts the PINs that it is sent.
"""

import asyncio
import datetime
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from child_process import Child
from demail_hw import KeyRole, open_provider
from demail_hw.cli.exit_codes import ExitCode
from demail_hw.errors import (
    CardError,
    HardwareError,
    Outcome,
    PinBlocked,
    PinIncorrect,
    PinNotInitialized,
    PinRefused,
    PinRequired,
)
from demail_hw.interfaces import KeyProvider, PinOperation, PinRecordState, Timeouts
from demail_hw.keys.provider import TcosKeyProvider
from demail_hw.pin_ledger import FilePinLedger
from demail_hw_simulators.card.personalities import netkey3, netkey3_fresh
from pin_faults import ICCSN, RIGHT, SECONDS, TRIES, WRONG, Act, Bench, Gate, WatchedCard, same_card, serving
from terminal import at_terminal

NEW = "864209"
OTHER_ICCSN = "89490173510080407144"
PENDING, REFUSED, ACCEPTED = PinRecordState.PENDING, PinRecordState.REFUSED, PinRecordState.ACCEPTED


@pytest.fixture
def bench(state_dir: Path) -> Iterator[Bench]:
    """Its card has so many tries that it is the ledger that stops a PIN, and not the last ones that are kept."""
    with serving(state_dir, *same_card(1)) as opened:
        yield opened


def open_keys(bench: Bench, pin: str = RIGHT, reader: int = 0) -> KeyProvider:
    return open_provider(
        bench.addresses[reader],
        pin=pin.encode,
        ledger=FilePinLedger(bench.folder),
        timeouts=Timeouts(connect=SECONDS, command=SECONDS),
    )


def sign(provider: KeyProvider) -> None:
    """Sign, and verify with the certificate."""
    key = cast("RSAPrivateKey", provider.identity(KeyRole.SIGNATURE).private_key)
    signature = key.sign(b"De-Mail", PKCS1v15(), SHA256())
    key.public_key().verify(signature, b"De-Mail", PKCS1v15(), SHA256())


def state(bench: Bench, pin: str = "global") -> PinRecordState | None:
    record = bench.records.get(pin)
    return record and record.state


# --- power loss


def test_f68_power_loss_between_verify_and_pso(bench: Bench) -> None:
    """The reader has not noticed it: the card says that the PIN is not verified. Nothing is repeated on its own; the
    next signature verifies anew, for the card took the PIN and has all its tries."""

    def blink(act: Act, command: bytes) -> bytes:
        del bench.card.faults["PSO"]
        bench.card.power_off()
        bench.card.power_on()
        return act(command)

    bench.card.faults["PSO"] = blink
    with open_keys(bench) as provider:
        with pytest.raises(HardwareError) as caught:
            sign(provider)
        assert bench.card.sent == ["VERIFY", "PSO"]
        assert caught.value.outcome is not Outcome.UNKNOWN
        sign(provider)
    assert bench.card.sent == ["VERIFY", "PSO", "VERIFY", "PSO"]
    assert bench.card.pin.tries == TRIES


def test_f68_power_loss_that_the_reader_notices(bench: Bench) -> None:
    def lose_power(act: Act, command: bytes) -> bytes:
        del bench.card.faults["PSO"]
        return bench.card.lose_power()

    bench.card.faults["PSO"] = lose_power
    with open_keys(bench) as provider:
        for _ in range(2):
            with pytest.raises(HardwareError):
                sign(provider)
    assert bench.card.sent == ["VERIFY", "PSO"]
    assert bench.sign()["did"] == "signed"
    assert bench.card.pin.tries == TRIES


def cut_before(card: WatchedCard) -> Callable[[Act, bytes], bytes]:
    return lambda act, command: card.lose_power()


def cut_after(card: WatchedCard) -> Callable[[Act, bytes], bytes]:
    def act_and_lose_power(act: Act, command: bytes) -> bytes:
        act(command)
        return card.lose_power()

    return act_and_lose_power


@pytest.mark.parametrize(("cut", "counts"), [(cut_before, RIGHT), (cut_after, NEW)])
def test_f69_power_loss_in_change(
    bench: Bench, cut: Callable[[WatchedCard], Callable[[Act, bytes], bytes]], counts: str
) -> None:
    """Before and after the card's commit. No PIN is tried unattended, and the way back is printed, and works."""
    bench.card.faults["CHANGE"] = cut(bench.card)
    changed = bench.run("pin", "change", "{card}", "--pin", "{0}", "--new", "{1}", pins=[RIGHT, NEW])
    assert changed.returncode == ExitCode.CARD
    assert "Verify the new PIN at the terminal" in changed.stderr
    assert (state(bench), bench.records["global"].operation) == (PENDING, PinOperation.CHANGE)
    for pin in (RIGHT, NEW):
        stopped = bench.run_sign(pin)
        assert stopped.returncode == ExitCode.PIN
        assert "How the attempt to change the PIN global" in stopped.stderr
        assert "Verify the new PIN at the terminal" in stopped.stderr
    assert "Verify the new PIN at the terminal" in bench.run("pin", "status", "{card}").stdout
    assert bench.card.sent == ["VERIFY", "CHANGE"]
    # The person goes the way: the new one, and if the card refuses it, the old one.
    for pin in (NEW, RIGHT):
        assert bench.run("pin", "clear", "{card}", "--yes").returncode == ExitCode.OK
        verified = bench.run("pin", "verify", "{card}", "--pin", "{0}", pins=[pin])
        if verified.returncode == ExitCode.OK:
            break
    assert pin == counts
    assert bench.run_sign(counts).returncode == ExitCode.OK
    assert bench.card.pin.tries == TRIES


@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
def test_f69_sigkill_in_change(bench: Bench, acted: bool) -> None:
    gate = bench.card.faults["CHANGE"] = Gate(acted=acted)
    words = bench.words("pin", "change", "{card}", "--pin", "{0}", "--new", "{1}", pins=[RIGHT, NEW])
    with Child("from demail_hw.cli.main import main; main()", *words) as child:
        gate.wait()
        child.kill()
        gate.open()
    assert state(bench) is PENDING
    for pin in (RIGHT, NEW):
        assert "Verify the new PIN at the terminal" in bench.sign(pin)["remedy"]
    assert bench.card.sent == ["VERIFY", "CHANGE"]


PUK = "12345678"


@pytest.mark.parametrize("blocked", [False, True], ids=["usable", "blocked"])
@pytest.mark.parametrize(("cut", "counts"), [(cut_before, RIGHT), (cut_after, NEW)], ids=["before", "after"])
def test_f69_power_loss_in_unblock(
    bench: Bench, cut: Callable[[WatchedCard], Callable[[Act, bytes], bytes]], counts: str, blocked: bool
) -> None:
    """Before and after the card's commit, of a PIN with no tries left, and of one that still has some: only of the
    first does the counter tell which it was. No PIN is tried unattended; the way back is printed, and works."""
    unblock = ("pin", "unblock", "{card}", "--puk", "{0}", "--new", "{1}")
    bench.card.pin.tries = 0 if blocked else TRIES
    bench.card.faults["RESET RETRY"] = cut(bench.card)
    cut_off = bench.run(*unblock, pins=[PUK, NEW])
    assert cut_off.returncode == ExitCode.CARD
    way = "See whether the PIN has its tries again" if blocked else "if the card refuses it, it was not set"
    assert way in cut_off.stderr
    assert (state(bench), bench.records["global"].operation) == (PENDING, PinOperation.UNBLOCK)
    assert (state(bench, "puk"), bench.records["puk"].operation) == (PENDING, PinOperation.UNBLOCK_ANOTHER)
    for pin in (RIGHT, NEW):
        stopped = bench.run_sign(pin)
        assert stopped.returncode == ExitCode.PIN
        still = blocked and counts == RIGHT
        assert ("blocked" if still else "How the attempt to unblock the PIN global") in stopped.stderr
    again = bench.run(*unblock, pins=[PUK, NEW])
    assert "How the attempt to unblock the PIN global" in again.stderr
    assert bench.card.sent == ["VERIFY", "RESET RETRY"]  # the PUK, alone and with the new PIN
    # The person goes the way: the new PIN if it may have been set, else the unblocking again.
    del bench.card.faults["RESET RETRY"]
    assert bench.run("pin", "clear", "{card}", "--yes").returncode == ExitCode.OK
    verified = bench.run("pin", "verify", "{card}", "--pin", "{0}", pins=[NEW])
    assert (verified.returncode == ExitCode.OK) is (counts == NEW)
    if counts == RIGHT:
        bench.run("pin", "clear", "{card}")
        stopped = bench.run(*unblock, pins=[PUK, NEW])  # not at a terminal: the card hides what the PUK may have lost
        assert "pin verify usbip://" in stopped.stderr
        assert "--which puk" in stopped.stderr
        bench.run("pin", "clear", "{card}", "--which", "puk")
        assert bench.run(*unblock, pins=[PUK, NEW]).returncode == ExitCode.OK
    assert bench.run_sign(NEW).returncode == ExitCode.OK
    assert (bench.card.pin.tries, bench.card.puk.tries) == (TRIES, TRIES)


def test_f70_tearing(bench: Bench) -> None:
    """The card counts before it compares, and loses its power in between: the right PIN has cost a try."""

    def tear(act: Act, command: bytes) -> bytes:
        del bench.card.faults["VERIFY"]
        bench.card.pin.tries -= 1
        return bench.card.lose_power()

    bench.card.faults["VERIFY"] = tear
    assert bench.sign()["outcome"] == "unknown"
    stopped = bench.sign()
    assert stopped["did"] == "PinRefused"
    assert bench.card.verifies == 1
    assert bench.card.pin.tries == TRIES - 1
    bench.run("pin", "clear", "{card}")
    assert bench.run("pin", "verify", "{card}", "--pin", "{0}", pins=[RIGHT]).returncode == ExitCode.OK
    assert bench.sign()["did"] == "signed"


# --- a key that is used up, a clock that jumps


@pytest.mark.parametrize("status", ["6982", "6983", "6984", "6985", "6a81", "6a88"])
def test_f72_key_deactivated_or_used_up(bench: Bench, status: str) -> None:
    """For good, and no fault of the PIN: that is sent once, and is not asked for again."""
    bench.card.faults["PSO"] = lambda act, command: bytes.fromhex(status)
    with open_keys(bench) as provider:
        for _ in range(3):
            with pytest.raises(CardError) as caught:
                sign(provider)
            assert (caught.value.outcome, caught.value.transient) == (Outcome.REFUSED, False)
            assert not isinstance(caught.value, PinIncorrect | PinBlocked | PinNotInitialized)
            assert caught.value.status == int(status, 16)
            if status == "6982":
                assert "PIN that opens this key" in caught.value.remedy
            else:  # what it is, no status word says for sure
                assert caught.value.remedy.startswith("See how the PIN global is: demail-hw --state-dir")
                assert "may be deactivated or used up" in caught.value.remedy
    assert bench.card.sent == ["VERIFY", "PSO", "PSO", "PSO"]
    assert (state(bench), bench.card.pin.tries) == (ACCEPTED, TRIES)


class WallClock:
    """The system's time, as NTP or a person sets it: ``jump``. The monotonic clock knows nothing of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = datetime.timedelta()
        clock, real, seconds = self, datetime.datetime, time.time

        class Moved(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Self:
                return cls.fromtimestamp(real.now(datetime.UTC).timestamp() + clock.ahead.total_seconds(), tz)

        monkeypatch.setattr(datetime, "datetime", Moved)
        monkeypatch.setattr(time, "time", lambda: seconds() + self.ahead.total_seconds())

    def jump(self, ahead: datetime.timedelta) -> None:
        self.ahead += ahead


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    return WallClock(monkeypatch)


YEARS = datetime.timedelta(days=1000)
each_way = pytest.mark.parametrize("jump", [YEARS, -YEARS], ids=["ahead", "back"])


@each_way
@pytest.mark.parametrize("command", ["PIN status", "VERIFY", "PSO"])
def test_f74_clock_jumps_in_a_command(
    bench: Bench, wall_clock: WallClock, jump: datetime.timedelta, command: str
) -> None:
    """Deadlines are on the monotonic clock: none is missed, and none is put off."""

    def jump_and_act(act: Act, sent: bytes) -> bytes:
        wall_clock.jump(jump)
        return act(sent)

    bench.card.faults[command] = jump_and_act
    with open_keys(bench) as provider:
        sign(provider)
    assert bench.card.sent == ["VERIFY", "PSO"]
    assert state(bench) is ACCEPTED


@each_way
def test_f74_a_refusal_holds_whatever_the_time_is(
    bench: Bench, wall_clock: WallClock, jump: datetime.timedelta
) -> None:
    with open_keys(bench, WRONG) as provider, pytest.raises(PinIncorrect):
        sign(provider)
    wall_clock.jump(jump)
    with open_keys(bench) as provider, pytest.raises(PinRefused, match="not sent again"):
        sign(provider)
    assert bench.card.verifies == 1


@each_way
@pytest.mark.parametrize(("lost", "then"), [(0, "signed"), (1, "PinRefused")])
def test_f74_what_has_no_end_is_told_by_the_counter_and_not_by_the_time(
    bench: Bench, wall_clock: WallClock, jump: datetime.timedelta, lost: int, then: str
) -> None:
    kill_at(bench, RIGHT, "after the note and before VERIFY")
    bench.card.pin.tries -= lost
    wall_clock.jump(jump)
    with open_keys(bench) as provider:
        assert outcome_of(provider) == then
    assert bench.card.verifies == (then == "signed")


@pytest.mark.parametrize("told", ["expired at", "is not valid before"])
def test_f74_validity_is_on_the_wall_clock(
    bench: Bench, wall_clock: WallClock, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As it is at each signature, and not as it was when the card was opened."""
    with open_keys(bench) as provider:
        sign(provider)
        assert told not in caplog.text
        certificate = provider.identity(KeyRole.SIGNATURE).certificate
        end = certificate.not_valid_after_utc if told == "expired at" else certificate.not_valid_before_utc
        day = datetime.timedelta(days=1 if told == "expired at" else -1)
        wall_clock.jump(end - datetime.datetime.now(datetime.UTC) + day)
        sign(provider)
    assert told in caplog.text


# --- a wrong PIN, and few tries


def test_f80_wrong_pin_configured(bench: Bench) -> None:
    first = bench.run_sign(WRONG)
    assert first.returncode == ExitCode.PIN
    assert f"{TRIES - 1} tries are left" in first.stderr
    for pin in (WRONG, RIGHT):  # which of the two it is now, nobody says: not even a hash of it is kept
        again = bench.run_sign(pin)
        assert again.returncode == ExitCode.PIN
        assert "not sent again until a person says so" in again.stderr
    assert bench.card.verifies == 1
    kept = (bench.folder / "pins" / f"{ICCSN}.json").read_text()
    assert WRONG not in kept
    assert set(kept.split('"')[1::2]) == {
        "pins", "global", "state", "refused", "operation", "verify", "at", "retries_left",
        bench.records["global"].at.isoformat(),
    }  # fmt: skip
    assert bench.run("pin", "clear", "{card}", "--yes").returncode == ExitCode.OK
    assert bench.run_sign().returncode == ExitCode.OK


@pytest.mark.parametrize("left", [1, 2])
def test_f81_few_tries_left(bench: Bench, left: int) -> None:
    bench.card.pin.tries = left
    refused = bench.run_sign()
    assert refused.returncode == ExitCode.PIN
    assert "2 are kept for people" in refused.stderr
    assert (bench.card.sent, bench.card.pin.tries) == ([], left)
    assert bench.records == {}


@pytest.mark.parametrize("status", ["6d00", "6700", "6f00", "9000"])
def test_f82_unreadable_counter(bench: Bench, status: str) -> None:
    """One attempt a record, however often the service is started."""
    bench.card.faults["PIN status"] = lambda act, command: bytes.fromhex(status)
    for _ in range(2):
        assert bench.sign()["did"] == "signed"
    did = [bench.sign(WRONG)["did"] for _ in range(3)]
    assert did == ["PinIncorrect", "PinRefused", "PinRefused"]
    assert bench.card.verifies == 3


@pytest.mark.parametrize(("left", "question"), [(1, "Go on? [y/N]: "), (2, "(2 tries left): ")])
def test_f82_a_person_is_told_what_the_card_said_last_and_asked_before_the_last_try(
    bench: Bench, left: int, question: str
) -> None:
    hide(bench)
    bench.card.pin.tries = left + 1
    assert bench.sign(WRONG)["did"] == "PinIncorrect"
    words = bench.words("pin", "verify", "{card}", "--keep", "0")
    bench.wait_until_free()
    answers = [(question, "n")] if left == 1 else [(question, RIGHT)]
    code, shown = at_terminal([sys.executable, "-m", "demail_hw.cli", *words], answers)
    assert code == (ExitCode.DECLINED if left == 1 else ExitCode.OK), shown
    assert bench.card.verifies == (1 if left == 1 else 2)


def test_f82_pin_that_is_not_there(bench: Bench) -> None:
    bench.card.faults["PIN status"] = lambda act, command: bytes.fromhex("6a88")
    assert "The card has no PIN global" in bench.run_sign().stderr
    assert bench.card.sent == []


@pytest.mark.parametrize("status", ["6983", "63c0"])
def test_f83_blocked(bench: Bench, status: str) -> None:
    bench.card.faults["PIN status"] = lambda act, command: bytes.fromhex(status)
    bench.card.pin.tries = 0
    for _ in range(2):
        blocked = bench.run_sign()
        assert blocked.returncode == ExitCode.PIN
        assert "blocked" in blocked.stderr
        assert "PIN puk" in blocked.stderr
    assert bench.card.sent == []
    assert bench.card.puk.tries == TRIES


# --- again and again, and all at once


def test_f84_restart_loop(bench: Bench) -> None:
    starts = [bench.run_sign(WRONG) for _ in range(10)]
    assert [start.returncode for start in starts] == [ExitCode.PIN] * 10
    # It is the card's no that was noted and that stops them, and not an attempt without an end.
    record = bench.records["global"]
    assert (record.state, record.operation, record.retries_left) == (REFUSED, PinOperation.VERIFY, TRIES - 1)
    assert all("The card refused the PIN global" in start.stderr for start in starts[1:])
    assert bench.card.verifies == 1
    assert bench.card.pin.tries == TRIES - 1


def verifies_of(bench: Bench) -> int:
    return sum(card.verifies for card in bench.cards)


def meet_at_the_counter(cards: Sequence[WatchedCard]) -> None:
    """Each has read the counter before any goes on."""
    barrier = threading.Barrier(len(cards))

    def meet(card: WatchedCard) -> Callable[[Act, bytes], bytes]:
        def once(act: Act, command: bytes) -> bytes:
            del card.faults["PIN status"]
            answer = act(command)
            barrier.wait(SECONDS)
            return answer

        return once

    for card in cards:
        card.faults["PIN status"] = meet(card)


def test_f85_ten_processes_at_once(state_dir: Path) -> None:
    """The card is in ten readers, for a reader lets only one program in."""
    cards = same_card(10)
    meet_at_the_counter(cards)
    with serving(state_dir, *cards) as bench:
        clients = [bench.client(WRONG, address=address) for address in bench.addresses]
        said = [client.hear_json() for client in clients]
        for client in clients:
            client.kill()
            with client:
                pass
        assert sorted(each["did"] for each in said) == ["PinIncorrect"] + ["PinRefused"] * 9
        assert all("not sent again" in each["message"] for each in said if each["did"] == "PinRefused")
        assert verifies_of(bench) == 1
        assert bench.card.pin.tries == TRIES - 1


def test_f85_ten_programs_want_one_reader(bench: Bench) -> None:
    clients = [bench.client(WRONG) for _ in range(10)]
    said = [client.hear_json() for client in clients]
    for client in clients:
        client.kill()
        with client:
            pass
    assert bench.card.verifies == 1
    assert {each["did"] for each in said} <= {"PinIncorrect", "PinRefused", "DeviceBusy"}
    assert [each["did"] for each in said].count("PinIncorrect") == 1
    assert {each["outcome"] for each in said if each["did"] != "PinIncorrect"} <= {"not sent"}


@pytest.mark.parametrize("readers", [1, 10])
def test_f85_ten_threads_at_once(state_dir: Path, readers: int) -> None:
    """Of one program: with one provider, or with one each."""
    cards = same_card(readers)
    meet_at_the_counter(cards)
    with serving(state_dir, *cards) as bench:
        providers = [open_keys(bench, WRONG, reader) for reader in range(readers)]
        start = threading.Barrier(10)
        caught: list[HardwareError] = []

        def use(provider: KeyProvider) -> None:
            start.wait(SECONDS)
            try:
                sign(provider)
            except HardwareError as error:
                caught.append(error)

        threads = [threading.Thread(target=use, args=(providers[n % readers],)) for n in range(start.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        for provider in providers:
            provider.close()
        assert sorted(type(error).__name__ for error in caught) == ["PinIncorrect"] + ["PinRefused"] * 9
        assert verifies_of(bench) == 1


# --- what is no PIN


@pytest.mark.parametrize(
    "text",
    ["12345", "1" * 17, "123 456", " 123456", "123456 ", "12345\u00e4", "\ufeff123456", "\n123456", "123456\x00"],
    ids=ascii,
)
def test_f86_malformed_pin(bench: Bench, text: str) -> None:
    refused = bench.run_sign(text)
    assert refused.returncode == ExitCode.PIN
    assert text.strip() not in refused.stderr
    assert bench.card.sent == []
    assert bench.records == {}


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n", "\nsecond line\n"], ids=ascii)
def test_f86_line_end(bench: Bench, end: str) -> None:
    assert bench.run_sign(RIGHT + end).returncode == ExitCode.OK
    assert bench.card.verifies == 1


class OpenCard(WatchedCard):
    """Its PIN is verified, by whomever, as soon as it has power."""

    def power_on(self) -> bytes:
        atr = super().power_on()
        assert self.card.transmit(bytes.fromhex("0020000006") + RIGHT.encode()) == b"\x90\x00"
        return atr


@pytest.mark.parametrize("text", ["", "\n", "\r\n"], ids=ascii)
def test_f87_empty_pin_is_no_login(state_dir: Path, text: str) -> None:
    """Not even with a card that would sign."""
    with serving(state_dir, OpenCard()) as bench:
        assert bench.run_sign(text).returncode == ExitCode.PIN
        with open_keys(bench, "") as provider, pytest.raises(PinRefused):
            sign(provider)
        with open_provider(bench.address) as provider, pytest.raises(PinRequired):
            sign(provider)
        assert bench.card.sent == []
        assert bench.sign()["did"] == "signed"


def test_f88_null_pin(state_dir: Path) -> None:
    with serving(state_dir, WatchedCard(netkey3_fresh())) as bench:
        for pin in (RIGHT, "000000"):
            refused = bench.run_sign(pin)
            assert refused.returncode == ExitCode.PIN
            assert "NullPIN" in refused.stderr
        assert bench.card.sent == []
        assert bench.records == {}


def test_f89_pin_changed_by_another(state_dir: Path) -> None:
    """While a service has the card, in its own reader; the service's other card goes on."""
    mine, operators = same_card(2)
    other = WatchedCard(netkey3(iccsn=OTHER_ICCSN))
    with serving(state_dir, mine, operators, other) as bench, open_keys(bench) as service:
        sign(service)
        changed = bench.run("pin", "change", "{card}", "--pin", "{0}", "--new", "{1}", pins=[RIGHT, NEW], reader=1)
        assert changed.returncode == ExitCode.OK, changed.stderr
        sign(service)  # the card has it verified still
        cast("TcosKeyProvider", service).session.connection.reset(deadline=time.monotonic() + SECONDS)
        with pytest.raises(PinIncorrect):
            sign(service)
        for _ in range(3):
            with pytest.raises(PinRefused, match="not sent again"):
                sign(service)
        with open_keys(bench, reader=2) as second:
            sign(second)
    assert mine.verifies == 2
    assert mine.pin.tries == TRIES - 1


# --- processes that end, stop, or split


def test_f90_fork_after_open(bench: Bench) -> None:
    with bench.client() as parent:
        first = parent.hear_json()
        assert first["did"] == "signed"
        parent.tell("fork")
        child, again = parent.hear_json(), parent.hear_json()
    assert child["pid"] != first["pid"] == again["pid"]
    assert (child["did"], child["outcome"]) == ("DeviceLost", "not sent")
    assert again["did"] == "signed"
    assert bench.card.sent == ["VERIFY", "PSO", "PSO"]


def test_f90_fork_before_the_pin_was_sent(bench: Bench) -> None:
    with bench.client(waits=True) as parent:
        assert parent.hear_json()["did"] == "opened"
        parent.tell("fork")
        assert [parent.hear_json()["did"] for _ in range(2)] == ["DeviceLost", "signed"]
    assert bench.card.verifies == 1


WORST_MOMENTS = {
    "before the note": ("before", 1),
    "after the note and before VERIFY": ("after", 1),
    "after the answer and before the note": ("before", 2),
    "after both": ("after", 2),
}


def kill_at(bench: Bench, pin: str, moment: str) -> None:
    """A client that ends at this moment."""
    if moment in WORST_MOMENTS:
        with bench.client(pin, strikes=["SIGKILL", *WORST_MOMENTS[moment]]) as client:
            assert client.wait() == -signal.SIGKILL
        return
    gate = bench.card.faults["VERIFY"] = Gate(acted=moment == "after the card counted")
    with bench.client(pin) as client:
        gate.wait()
        client.kill()
        del bench.card.faults["VERIFY"]
        gate.open()


MOMENTS = pytest.mark.parametrize("moment", [*WORST_MOMENTS, "before the card counted", "after the card counted"])


@MOMENTS
def test_f91_sigkill_with_a_wrong_pin_costs_one_try(bench: Bench, moment: str) -> None:
    kill_at(bench, WRONG, moment)
    did = [bench.sign(WRONG)["did"] for _ in range(3)]
    assert set(did) <= {"PinIncorrect", "PinRefused"}
    assert did[1:] == ["PinRefused"] * 2
    assert bench.card.verifies == 1
    assert bench.card.pin.tries == TRIES - 1


@MOMENTS
def test_f91_sigkill_with_the_right_pin_needs_nobody(bench: Bench, moment: str) -> None:
    kill_at(bench, RIGHT, moment)
    assert bench.sign()["did"] == "signed"
    assert state(bench) is ACCEPTED
    assert bench.card.pin.tries == TRIES


def hide(bench: Bench) -> None:
    bench.card.faults["PIN status"] = lambda act, command: bytes.fromhex("6d00")


MAYBE_SENT = ["after the note and before VERIFY", "after the card counted", "after the answer and before the note"]


@pytest.mark.parametrize(
    ("hidden", "moment"),
    [*(("always", moment) for moment in MAYBE_SENT), *((when, MAYBE_SENT[-1]) for when in ("before", "after"))],
)
@pytest.mark.parametrize("pin", [RIGHT, WRONG])
def test_f70_f82_f91_sigkill_where_the_counter_is_hidden(bench: Bench, hidden: str, moment: str, pin: str) -> None:
    """Before the kill, after it, or always: then nothing proves that no try was lost, and no further one is spent
    unattended, not even with the PIN that would be right."""
    if hidden != "after":
        hide(bench)
    kill_at(bench, pin, moment)
    bench.card.faults.clear()
    if hidden != "before":
        hide(bench)
    sent = bench.card.sent.copy()
    for each in (pin, RIGHT, WRONG):
        stopped = bench.sign(each)
        assert (stopped["did"], stopped["outcome"]) == ("PinRefused", "not sent")
        assert "How the attempt to verify the PIN global" in stopped["message"]
    assert bench.card.sent == sent
    assert state(bench) is PENDING
    assert bench.run("pin", "clear", "{card}", "--yes").returncode == ExitCode.OK
    assert bench.sign()["did"] == "signed"


def test_f91_sigkill_in_a_transaction(bench: Bench) -> None:
    """The next one has the card, from its beginning, and the page of the ledger."""
    gate = bench.card.faults["PSO"] = Gate(acted=False)
    with bench.client() as client:
        gate.wait()
        client.kill()
        del bench.card.faults["PSO"]
        gate.open()
    bench.wait_until_free()
    before = bench.card.card.resets
    assert bench.run_sign().returncode == ExitCode.OK
    assert bench.card.card.resets > before
    assert bench.card.verifies == 2


@pytest.mark.parametrize(("pin", "then"), [(RIGHT, "signed"), (WRONG, "PinRefused")])
@pytest.mark.parametrize("command", ["PIN status", "VERIFY"])
def test_f92_keyboard_interrupt_in_a_command(bench: Bench, command: str, pin: str, then: str) -> None:
    """A connection whose answer is outstanding is not used again: no answer is taken for that of another command."""
    gate = bench.card.faults[command] = Gate(acted=True)
    with bench.client(pin) as client:
        gate.wait()
        client.signal(signal.SIGINT)
        assert client.hear_json()["did"] == "KeyboardInterrupt"
        del bench.card.faults[command]
        gate.open()
        client.tell()
        lost = client.hear_json()
        assert (lost["did"], lost["outcome"]) == ("CardRemoved", "not sent")
    sent = command == "VERIFY"
    assert bench.card.verifies == sent
    assert (state(bench) is PENDING) is sent
    assert bench.sign(pin)["did"] == (then if sent or pin == RIGHT else "PinIncorrect")
    assert bench.card.verifies == 1 + (pin == RIGHT and sent)


def outcome_of(provider: KeyProvider) -> str:
    try:
        sign(provider)
    except HardwareError as error:
        return type(error).__name__
    return "signed"


@pytest.mark.parametrize("end", ["cancelled", "timed out"])
@pytest.mark.parametrize("command", ["PIN status", "VERIFY"])
@pytest.mark.parametrize(
    ("pin", "outcomes", "settled"),
    [(RIGHT, ["signed", "signed"], ACCEPTED), (WRONG, ["PinIncorrect", "PinRefused"], REFUSED)],
)
def test_f92_asyncio_task_around_a_thread_is_cancelled(
    bench: Bench, pin: str, outcomes: list[str], settled: PinRecordState, command: str, end: str
) -> None:
    """The thread knows nothing of it: its command is completed, and noted. The service's next task, which is there
    at once, waits for it and sends nothing a second time."""
    gate = bench.card.faults[command] = Gate(acted=True)
    came: list[str] = []

    def work(provider: KeyProvider) -> None:
        came.append(outcome_of(provider))

    async def give_up(task: asyncio.Task[None]) -> None:
        if end == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(task, timeout=0)

    async def serve(provider: KeyProvider) -> None:
        first = asyncio.create_task(asyncio.to_thread(work, provider))
        await asyncio.to_thread(gate.wait)
        await give_up(first)
        assert state(bench) is (PENDING if command == "VERIFY" else None)
        second = asyncio.create_task(asyncio.to_thread(work, provider))
        gate.open()
        await second

    with open_keys(bench, pin) as provider:
        asyncio.run(serve(provider))
        assert sorted(came) == sorted(outcomes)
        assert bench.card.sent == ["VERIFY", "PSO", "PSO"][: 3 if pin == RIGHT else 1]
        assert state(bench) is settled


@pytest.mark.parametrize(("pin", "then", "verifies"), [(RIGHT, "signed", 2), (WRONG, "PinRefused", 1)])
def test_f92_caller_of_a_thread_gave_up_and_closed(bench: Bench, pin: str, then: str, verifies: int) -> None:
    """In the middle of VERIFY: its answer is lost with the connection, so the note before it stays. The counter
    proves that a right PIN cost nothing; a wrong one is not sent again."""
    gate = bench.card.faults["VERIFY"] = Gate(acted=True)
    with ThreadPoolExecutor(1) as pool:
        with open_keys(bench, pin) as provider:
            attempt = pool.submit(outcome_of, provider)
            gate.wait()
            with pytest.raises(TimeoutError):
                attempt.result(timeout=0)
        assert attempt.result(SECONDS) == "DeviceLost"
        assert state(bench) is PENDING
        gate.open()
    assert bench.sign(pin)["did"] == then
    assert bench.card.verifies == verifies
    assert bench.card.pin.tries == TRIES - (pin == WRONG)


# --- a system that has nothing left


@pytest.mark.parametrize(("word", "remedy"), [("exhaust files", "LimitNOFILE"), ("fill disk", "Make room")])
def test_f95_nothing_can_be_noted(bench: Bench, word: str, remedy: str) -> None:
    """EMFILE, and EFBIG in the place of ENOSPC."""
    with bench.client(waits=True) as client:
        assert client.hear_json()["did"] == "opened"
        client.tell(word)
        refused = client.hear_json()
    assert (refused["did"], refused["outcome"]) == ("PinRefused", "not sent")
    assert remedy in refused["remedy"]
    assert bench.card.sent == []
    assert bench.records == {}
    assert bench.sign()["did"] == "signed"


FULL_DISK = """
set -e
mount -t tmpfs -o size=4k,mode=0700 tmpfs "$1"
head -c 4096 /dev/zero > "$1/full"
shift
exec "$@"
"""


def test_f95_full_disk(bench: Bench, tool: Callable[[str], str]) -> None:
    """A small one of the client's own, in a mount namespace."""
    bench.folder.mkdir()
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    under = [tool("unshare"), "--mount", *rights, "sh", "-c", FULL_DISK, "sh", str(bench.folder)]
    with bench.client(under=under) as client:
        refused = client.hear_json()
    assert (refused["did"], refused["outcome"]) == ("PinRefused", "not sent")
    assert "No space left on device" in refused["message"]
    assert "Make room" in refused["remedy"]
    assert bench.card.sent == []


@pytest.mark.parametrize(
    ("pin", "first", "second"), [(RIGHT, "signed", "signed"), (WRONG, "PinIncorrect", "PinRefused")]
)
def test_f95_how_it_ended_cannot_be_noted(bench: Bench, pin: str, first: str, second: str) -> None:
    """Of a VERIFY that was under way when the process ran out of files: the note before stays, and is enough."""
    gate = bench.card.faults["VERIFY"] = Gate(acted=True)
    with bench.client(pin) as client:
        gate.wait()
        _, most = resource.prlimit(client.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(client.pid, resource.RLIMIT_NOFILE, (3, most))
        gate.open()
        assert client.hear_json()["did"] == first
    assert state(bench) is PENDING
    del bench.card.faults["VERIFY"]
    assert bench.sign(pin)["did"] == second
    assert bench.card.verifies == (2 if pin == RIGHT else 1)


COMMAND_SECONDS = 3.0


def let_the_deadline_pass() -> None:
    """Whatever was begun before has none left. That time passes is the fault itself: nothing else is waited for."""
    over = time.monotonic() + COMMAND_SECONDS
    while (left := over - time.monotonic()) > 0:
        threading.Event().wait(left)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_f96_stopped_until_after_the_deadline_around_the_note(bench: Bench, moment: str) -> None:
    """Nothing leaves after it."""
    with bench.client(strikes=["SIGSTOP", moment, 1], command=COMMAND_SECONDS) as client:
        client.wait_until_stopped()
        let_the_deadline_pass()
        client.signal(signal.SIGCONT)
        late = client.hear_json()
        assert (late["did"], late["outcome"]) == ("DeadlineExceeded", "not sent")
        assert bench.card.sent == []
        client.tell()
        assert client.hear_json()["did"] == "signed"
    assert bench.card.pin.tries == TRIES
    assert state(bench) is ACCEPTED


@pytest.mark.parametrize("moment", ["before", "after"])
def test_f96_ten_minutes_pass_around_the_note(bench: Bench, moment: str) -> None:
    """For the whole client, while it has the card's transaction and the ledger's page: nothing leaves after them,
    and it goes on with what it has open."""
    with bench.client(strikes=["PAUSE", moment, 1], waits=True) as client:
        assert client.hear_json()["did"] == "opened"
        client.tell()
        late = client.hear_json()
        assert (late["did"], late["outcome"]) == ("DeadlineExceeded", "not sent")
        assert bench.card.sent == []
        client.tell()
        assert client.hear_json()["did"] == "signed"
    assert bench.card.pin.tries == TRIES
    assert state(bench) is ACCEPTED


@pytest.mark.parametrize(("pin", "then"), [(RIGHT, ["CardError", "signed"]), (WRONG, ["PinIncorrect", "PinRefused"])])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_f96_suspended_while_the_card_loses_its_power(bench: Bench, moment: str, pin: str, then: list[str]) -> None:
    """The monotonic clock stood still, so no deadline tells of it, and the reader has noticed nothing. The card lost
    what was selected: the signature fails, and the next one begins anew."""
    with bench.client(pin, strikes=["SIGSTOP", moment, 1]) as client:
        client.wait_until_stopped()
        bench.card.power_off()
        bench.card.power_on()
        client.signal(signal.SIGCONT)
        first = client.hear_json()
        assert first["outcome"] == "refused"
        client.tell()
        assert [first["did"], client.hear_json()["did"]] == then
    assert bench.card.verifies == 1
    assert bench.sign(pin)["did"] == then[-1]
    assert bench.card.pin.tries == TRIES - (pin == WRONG)


@pytest.mark.parametrize(("pin", "did", "tries"), [(RIGHT, "signed", TRIES), (WRONG, "PinRefused", TRIES - 1)])
def test_f96_stopped_until_after_the_deadline_in_verify(bench: Bench, pin: str, did: str, tries: int) -> None:
    gate = bench.card.faults["VERIFY"] = Gate(acted=True)
    with bench.client(pin, command=COMMAND_SECONDS) as client:
        gate.wait()
        client.signal(signal.SIGSTOP)
        client.wait_until_stopped()
        let_the_deadline_pass()
        client.signal(signal.SIGCONT)
        late = client.hear_json()
        assert (late["did"], late["outcome"]) == ("DeadlineExceeded", "unknown")
        del bench.card.faults["VERIFY"]
        gate.open()
        assert state(bench) is PENDING
        client.tell()
        lost = client.hear_json()
        assert (lost["did"], lost["outcome"]) == ("DeviceLost", "not sent")
        assert bench.card.verifies == 1
    assert bench.sign(pin)["did"] == did
    assert bench.card.pin.tries == tries
