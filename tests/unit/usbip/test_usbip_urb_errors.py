"""The status of a transfer as a typed error."""

import pytest

from demail_hw.errors import DeviceLost, Layer, Outcome, TransferStalled, TransferTimeout, TransportError
from demail_hw.usbip.messages import UrbStatus
from demail_hw.usbip.urb_errors import urb_error


@pytest.mark.parametrize(
    ("status", "kind", "outcome"),
    [
        (UrbStatus.EPIPE, TransferStalled, Outcome.REFUSED),
        (UrbStatus.ENODEV, DeviceLost, Outcome.UNKNOWN),
        (UrbStatus.ESHUTDOWN, DeviceLost, Outcome.UNKNOWN),
        (UrbStatus.ETIME, TransferTimeout, Outcome.UNKNOWN),
        (UrbStatus.ETIMEDOUT, TransferTimeout, Outcome.UNKNOWN),
        (UrbStatus.EOVERFLOW, TransportError, Outcome.UNKNOWN),
        (UrbStatus.EPROTO, TransportError, Outcome.UNKNOWN),
        (UrbStatus.ECONNRESET, TransportError, Outcome.UNKNOWN),
        (-4711, TransportError, Outcome.UNKNOWN),
    ],
)
def test_only_a_stall_says_what_became_of_the_command(
    status: int, kind: type[TransportError], outcome: Outcome
) -> None:
    error = urb_error(status, stalled=Outcome.REFUSED)

    assert type(error) is kind
    assert (error.layer, error.outcome) == (Layer.TRANSPORT, outcome)
    assert str(int(status)) in error.message
