"""What the status of a transfer means, as typed errors."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from demail_hw.errors import DeviceLost, Outcome, TransferStalled, TransferTimeout, TransportError
from demail_hw.usbip.messages import UrbStatus

__all__ = ["urb_error"]

_MEANINGS: Final[Mapping[int, tuple[type[TransportError], str]]] = MappingProxyType(
    {
        UrbStatus.EPIPE: (TransferStalled, "the endpoint is stalled"),
        UrbStatus.ENODEV: (DeviceLost, "the device is gone"),
        UrbStatus.ESHUTDOWN: (DeviceLost, "the device is gone"),
        UrbStatus.ETIME: (TransferTimeout, "the device did not answer on its bus"),
        UrbStatus.ETIMEDOUT: (TransferTimeout, "the device did not answer on its bus"),
        UrbStatus.EOVERFLOW: (TransportError, "the device sent more than was asked for"),
        UrbStatus.EPROTO: (TransportError, "an error on the device's bus"),
        UrbStatus.EILSEQ: (TransportError, "an error on the device's bus"),
    }
)


def urb_error(status: int, *, stalled: Outcome) -> TransportError:
    """The error behind a status other than OK, a :class:`~demail_hw.usbip.messages.UrbStatus` or any other.

    ``stalled``: what became of the command if it is EPIPE. What any other leaves behind is unknown.
    """
    kind, why = _MEANINGS.get(status, (TransportError, "the device's side gave it up"))
    outcome = stalled if status == UrbStatus.EPIPE else Outcome.UNKNOWN
    return kind(f"The transfer failed with status {status}: {why}.", outcome=outcome)
