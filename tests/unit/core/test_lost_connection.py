import pytest

from demail_hw.errors import CardRemoved, DeadlineExceeded, DeviceLost, HardwareError, Outcome, TransferTimeout
from demail_hw.lost_connection import CLOSED, LostConnection


@pytest.mark.parametrize(
    ("error", "kind", "transient"),
    [
        (CardRemoved("out"), CardRemoved, False),
        (CardRemoved("reset", transient=True), CardRemoved, True),
        (DeviceLost("gone"), DeviceLost, True),
        (DeviceLost("gone", transient=False), DeviceLost, False),
        (DeadlineExceeded("late", transient=True), DeviceLost, True),
        (TransferTimeout("late"), DeviceLost, True),
        (KeyboardInterrupt(), CardRemoved, False),
        (None, CardRemoved, False),
    ],
)
def test_loss_keeps_the_kind_and_whether_it_passes(
    error: BaseException | None, kind: type[HardwareError], transient: bool
) -> None:
    said = LostConnection.by(error).error()
    assert (type(said), said.transient, said.outcome) == (kind, transient, Outcome.NOT_SENT)
    assert said.message == "The connection to the card was lost before."


def test_closing_is_told_apart_from_a_loss() -> None:
    said = CLOSED.error()
    assert (type(said), said.transient) == (CardRemoved, False)
    assert said.message == "The connection to the card was closed."
