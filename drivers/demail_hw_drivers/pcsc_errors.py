"""What the return codes of PC/SC mean: the one place where they become errors of ours."""

import contextlib
import enum
import sys
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from demail_hw.errors import (
    CardMute,
    CardRemoved,
    DeviceLost,
    DeviceNotFound,
    HardwareError,
    Layer,
    NoCard,
    Outcome,
    ReaderBusy,
    ReaderError,
    TransportError,
)

__all__ = ["PcscFailure", "ReturnCode", "Stage", "pcsc_errors"]


class ReturnCode(enum.IntEnum):
    """The return codes that mean something to us (PC/SC part 5, 3.1.1; numbers of winscard and pcsc-lite)."""

    S_SUCCESS = 0
    E_UNKNOWN_READER = 0x80100009
    E_TIMEOUT = 0x8010000A
    E_SHARING_VIOLATION = 0x8010000B
    E_NO_SMARTCARD = 0x8010000C
    E_PROTO_MISMATCH = 0x8010000F
    F_COMM_ERROR = 0x80100013
    E_NOT_TRANSACTED = 0x80100016
    E_READER_UNAVAILABLE = 0x80100017
    E_NO_SERVICE = 0x8010001D
    E_SERVICE_STOPPED = 0x8010001E
    E_NO_READERS_AVAILABLE = 0x8010002E
    E_COMM_DATA_LOST = 0x8010002F
    W_UNRESPONSIVE_CARD = 0x80100066
    W_UNPOWERED_CARD = 0x80100067
    W_RESET_CARD = 0x80100068
    W_REMOVED_CARD = 0x80100069
    W_SECURITY_VIOLATION = 0x8010006A


class Stage(enum.Enum):
    """What was being done when a call failed: only a command can have reached the card.

    ``CONNECTING``: to have the card alone; ``JOINING``: to share it.
    """

    ASKING = "asking"
    CONNECTING = "connecting"
    JOINING = "joining"
    CONNECTED = "connected"
    COMMAND = "command"


class PcscFailure(Exception):
    """A function of PC/SC did not say S_SUCCESS. ``code``: what it said. It never leaves the driver."""

    def __init__(self, code: int) -> None:
        super().__init__(f"PC/SC said {code:#010x}")
        self.code = code


class _Meaning(NamedTuple):
    kind: type[HardwareError]
    text: str
    remedy: str | None = None
    transient: bool | None = None


_OPEN_ANEW: Final = "Open the provider anew."
_REMOVED: Final = _Meaning(CardRemoved, "The card was taken out.")
_NO_CARD: Final = _Meaning(
    NoCard, "No card is in the reader.", "Insert the card; if it is in, take it out for a second."
)
"""pcsc-lite 1.9.9 can miss a card that was out for less than the 400 ms between two looks at the slot."""
_SERVICE_ENDED: Final = _Meaning(
    DeviceLost, "The PC/SC service ended, or was started anew.", f"See that pcscd runs. {_OPEN_ANEW}"
)
_NO_SERVICE: Final = _Meaning(
    TransportError,
    "There is no PC/SC service.",
    "Install pcscd and libpcsclite1, and start it: systemctl start pcscd.socket.",
)
_CONNECTION_BROKE: Final = _Meaning(DeviceLost, "The connection to the PC/SC service broke.", _OPEN_ANEW)
_END_THAT_PROGRAM: Final = (
    "End that program: often GnuPG's scdaemon (gpgconf --kill scdaemon), or a browser or mail program with a PKCS#11 "
    "module."
)
_BUSY: Final = _Meaning(ReaderBusy, "Another program has the card.", _END_THAT_PROGRAM)

_MEANINGS: Final[Mapping[int, _Meaning]] = {
    ReturnCode.E_UNKNOWN_READER: _Meaning(
        DeviceNotFound,
        "PC/SC does not know this reader, or not any more.",
        "Plug the reader in, and list the readers.",
    ),
    ReturnCode.E_READER_UNAVAILABLE: _Meaning(
        DeviceLost, "The reader was unplugged, or does not work.", f"Plug the reader in. {_OPEN_ANEW}"
    ),
    ReturnCode.E_SHARING_VIOLATION: _BUSY,
    ReturnCode.E_NO_SMARTCARD: _REMOVED,
    ReturnCode.W_REMOVED_CARD: _REMOVED,
    ReturnCode.W_UNPOWERED_CARD: _Meaning(CardRemoved, "The card lost its power."),
    ReturnCode.W_RESET_CARD: _Meaning(
        CardRemoved,
        "Another program reset the card, so that it forgot what was selected and which PIN was verified.",
        "Try again.",
        transient=True,
    ),
    ReturnCode.W_UNRESPONSIVE_CARD: _Meaning(CardMute, "The card does not answer its reset."),
    ReturnCode.E_NOT_TRANSACTED: _Meaning(
        CardRemoved, "The reader and the card did not understand each other; perhaps the card was taken out."
    ),
    ReturnCode.E_PROTO_MISMATCH: _Meaning(ReaderError, "The card speaks neither T=0 nor T=1."),
    ReturnCode.F_COMM_ERROR: _CONNECTION_BROKE,
    ReturnCode.E_COMM_DATA_LOST: _CONNECTION_BROKE,
    ReturnCode.E_NO_SERVICE: _SERVICE_ENDED,
    ReturnCode.E_SERVICE_STOPPED: _SERVICE_ENDED,
    ReturnCode.W_SECURITY_VIOLATION: _CONNECTION_BROKE,
}
_WITHOUT_A_CARD: Final[Mapping[int, _Meaning]] = {
    **_MEANINGS,
    ReturnCode.E_NO_SMARTCARD: _NO_CARD,
    ReturnCode.W_REMOVED_CARD: _NO_CARD,
    ReturnCode.W_UNPOWERED_CARD: _Meaning(CardMute, "The card does not answer."),
    ReturnCode.E_NO_SERVICE: _NO_SERVICE,
    ReturnCode.E_SERVICE_STOPPED: _NO_SERVICE,
    # pcsc-lite says it too when the service ends in the middle of the question.
    ReturnCode.W_SECURITY_VIOLATION: _Meaning(
        TransportError,
        "The PC/SC service hung up: it does not let this user at its readers and cards, or it has just ended.",
        "Allow it in a polkit rule: org.debian.pcsc-lite.access_pcsc and org.debian.pcsc-lite.access_card.",
        transient=False,
    ),
}
_OF_STAGE: Final[Mapping[Stage, Mapping[int, _Meaning]]] = {
    Stage.ASKING: _WITHOUT_A_CARD,
    Stage.CONNECTING: {
        **_WITHOUT_A_CARD,
        ReturnCode.E_SHARING_VIOLATION: _BUSY._replace(
            remedy=f"{_END_THAT_PROGRAM} Or use the card beside it, with ?share=shared."
        ),
    },
    Stage.JOINING: _WITHOUT_A_CARD,
    Stage.CONNECTED: _MEANINGS,
    Stage.COMMAND: _MEANINGS,
}
_BEFORE_THE_CARD: Final[Mapping[str, frozenset[int]]] = {
    "linux": frozenset({ReturnCode.W_RESET_CARD, ReturnCode.W_REMOVED_CARD}),
}
"""The codes that prove that a command did not reach the card, by ``sys.platform``. Linux has pcsc-lite, which looks
for these before it gives a command to the reader's driver; the driver's own failures have other codes (pcsc-lite
1.9.9, SCardTransmit). The services of other systems promise nothing of the kind."""


@contextlib.contextmanager
def pcsc_errors(stage: Stage) -> Iterator[None]:
    """Failures of the block become errors of ours, with the outcome that they prove at this stage."""
    try:
        yield
    except PcscFailure as failure:
        raise _error(failure.code, stage) from failure


def _error(code: int, stage: Stage) -> HardwareError:
    may_have_acted = stage is Stage.COMMAND and code not in _BEFORE_THE_CARD.get(sys.platform, ())
    outcome = Outcome.UNKNOWN if may_have_acted else Outcome.NOT_SENT
    meaning = _OF_STAGE[stage].get(code)
    if meaning is None:
        return ReaderError(f"PC/SC failed with {code:#010x}.", layer=Layer.READER, outcome=outcome)
    return meaning.kind(meaning.text, remedy=meaning.remedy, transient=meaning.transient, outcome=outcome)
