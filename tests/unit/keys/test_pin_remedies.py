"""What a person is told to do next about a PIN: it can be typed as it stands, and is let through."""

import datetime

import pytest

from demail_hw.interfaces import PinOperation, PinRecord, PinRecordState
from demail_hw.keys.pin_remedies import PinRemedies
from demail_hw.tcos.card import PinState, PinStatus
from demail_hw.tcos.layout import PinName
from demail_hw.tcos.profiles import NETKEY3

GLOBAL, PUK, NKS_1 = (NETKEY3.pin(name) for name in (PinName.GLOBAL, PinName.PUK, PinName.NKS_1))
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
READY, BLOCKED, UNSET = PinStatus(PinState.READY, 3), PinStatus(PinState.BLOCKED, 0), PinStatus(PinState.NULL_PIN)


def record(state: PinRecordState, operation: PinOperation, left: int | None = None) -> PinRecord:
    return PinRecord(state, operation, NOW, left)


def refused(left: int | None) -> PinRecord:
    return record(PinRecordState.REFUSED, PinOperation.VERIFY, left)


def test_address_and_folder_are_named_as_a_shell_takes_them() -> None:
    remedies = PinRemedies("/var/lib/my own", "usbip://server/?card=0815")
    assert remedies.first_pin(GLOBAL) == (
        "Set the first one: demail-hw --state-dir '/var/lib/my own' pin initialize 'usbip://server/?card=0815'."
    )


@pytest.mark.parametrize(
    ("noted", "now", "keep"),
    [(2, 2, " --keep 1"), (2, 1, " --keep 0"), (2, None, " --keep 1"), (2, 3, ""), (9, 9, "")],
)
def test_what_is_kept_after_a_refusal_fits_the_counter_as_it_is_now(noted: int, now: int | None, keep: str) -> None:
    said = PinRemedies().after_refusal(GLOBAL, refused(noted), now)
    assert f"pin verify URI{keep}." in said
    assert ("restores" in said) is bool(keep)


def test_a_person_who_types_has_no_source_to_correct() -> None:
    for left in (1, 2, 3):
        assert "source" not in PinRemedies(attended=True).after_refusal(GLOBAL, refused(left), left)


def test_before_the_last_try_it_is_said_what_comes_after_it() -> None:
    said = PinRemedies().after_refusal(GLOBAL, refused(1), 1)
    assert "Another wrong one blocks it, and then only the PIN puk unblocks it." in said
    assert "blocks" not in PinRemedies().after_refusal(GLOBAL, refused(2), 2)


def test_who_looked_is_not_sent_to_look() -> None:
    """Each kind of attempt without an end, with two tries left: no way back leads to where one comes from."""
    for operation in (
        PinOperation.VERIFY,
        PinOperation.UNBLOCK_ANOTHER,
        PinOperation.INITIALIZE,
        PinOperation.CHANGE,
    ):
        pending = record(PinRecordState.PENDING, operation, 3)
        said = PinRemedies().way_back(GLOBAL, pending, PinStatus(PinState.READY, 2))
        assert "pin status" not in said
        assert "pin verify URI --keep 1" in said
    unset = PinRemedies().way_back(GLOBAL, record(PinRecordState.PENDING, PinOperation.INITIALIZE), UNSET)
    assert unset == PinRemedies().first_pin(GLOBAL)


@pytest.mark.parametrize(
    ("puk", "end"),
    [
        (READY, "Unblock it with the PIN puk: demail-hw pin unblock URI."),
        (UNSET, "set that first (demail-hw pin initialize URI --which puk)."),
        (BLOCKED, "ask the card's issuer."),
    ],
)
def test_the_way_out_of_a_blocked_pin_fits_its_puk(puk: PinStatus, end: str) -> None:
    assert PinRemedies().unblocking(GLOBAL, {GLOBAL: BLOCKED, PUK: puk}).endswith(end)


def test_a_puk_that_can_be_unblocked_itself_is_not_the_end() -> None:
    statuses = {NKS_1: BLOCKED, GLOBAL: BLOCKED, PUK: READY}
    assert PinRemedies().unblocking(NKS_1, statuses).endswith("see to that first: demail-hw pin unblock URI.")
    assert PinRemedies().unblocking(NKS_1, {**statuses, PUK: BLOCKED}).endswith("ask the card's issuer.")


def test_the_puk_of_a_pin_that_is_not_blocked_gets_its_tries_by_it() -> None:
    said = PinRemedies().puk_blocked(GLOBAL, PUK, {GLOBAL: READY, PUK: BLOCKED})
    assert said.startswith("The PIN global is not blocked.")
    assert said.endswith("demail-hw pin unblock URI --which puk.")
    assert "issuer" in PinRemedies().puk_blocked(GLOBAL, PUK, {GLOBAL: BLOCKED, PUK: BLOCKED})
