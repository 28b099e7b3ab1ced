"""The seams of the house, all on one page.

Each is a protocol with at least two implementations, one of them simulated, and one contract suite in
``tests/contract`` that every implementation passes.

Two words are used everywhere:

- A *deadline* is a moment on ``time.monotonic()``, in seconds. It is handed down unchanged from the top;
  no layer invents a wait of its own. When it is over, :class:`~demail_hw.errors.DeadlineExceeded` is raised.
- *Buffers* are a gather list: every layer puts its header in front and nobody joins, so that a PIN exists in
  one wiped buffer only.
"""

import dataclasses
import datetime
import enum
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeAlias

from demail_hw.address import Address

if TYPE_CHECKING:
    # Behind it is cryptography, which who carries bytes does without.
    from demail_hw.identity import Identity, KeyRole

__all__ = [
    "Buffer",
    "Buffers",
    "CardConnection",
    "CardLimits",
    "CardLock",
    "Deadline",
    "ExportedDevice",
    "KeyProvider",
    "PinLedger",
    "PinOperation",
    "PinPage",
    "PinRecord",
    "PinRecordState",
    "Reader",
    "ReaderDriver",
    "ReaderInfo",
    "ShareMode",
    "Timeouts",
    "Transfer",
    "TransferResult",
    "UsbIdentity",
    "UsbTransport",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
Buffers: TypeAlias = Sequence[Buffer]
Deadline: TypeAlias = float


class Timeouts(NamedTuple):
    """How long the top layer gives each kind of operation, in seconds."""

    connect: float = 5.0
    command: float = 30.0


# --- USB -------------------------------------------------------------------------------------------------------


class UsbIdentity(NamedTuple):
    """Who a USB device says it is (USB 2.0, 9.6.1), and where it is plugged in right now.

    ``version``: bcdDevice, 0x0102 for 1.02, where it is known. ``interface``: bInterfaceNumber of the one that is
    claimed; the first for smart cards, where that is not said.
    """

    vendor_id: int
    product_id: int
    serial: str | None
    product: str | None
    bus_id: str
    version: int | None = None
    interface: int | None = None


class UsbTransport(Protocol):
    """One claimed USB interface, wherever it is plugged in. Safe for several threads.

    Raises :class:`~demail_hw.errors.TransportError`; the outcome is ``NOT_SENT`` only if no byte of the
    transfer can have reached the device.
    """

    @property
    def identity(self) -> UsbIdentity:
        """Who the device is."""
        ...

    @property
    def configuration(self) -> bytes:
        """The whole configuration descriptor, class descriptors included (USB 2.0, 9.6.3)."""
        ...

    def control(self, setup: bytes, data: Buffers = (), *, deadline: Deadline) -> bytes:
        """One control transfer: 8 setup bytes (USB 2.0, 9.3); the data of an IN transfer comes back."""
        ...

    def bulk_out(self, data: Buffers, *, deadline: Deadline) -> None:
        """One bulk-OUT transfer."""
        ...

    def bulk_in(self, length: int, *, deadline: Deadline) -> bytes:
        """One bulk-IN transfer of at most ``length`` bytes."""
        ...

    def exchange(self, out: Buffers, length: int, *, deadline: Deadline) -> bytes:
        """``bulk_out`` and ``bulk_in`` as one pipelined round trip."""
        ...

    def interrupt_in(self, *, deadline: Deadline) -> bytes:
        """The oldest interrupt-IN answer that was not handed out yet."""
        ...

    def clear_halt(self, endpoint: int, *, deadline: Deadline) -> None:
        """Clear a stalled endpoint, named by its address (USB 2.0, 9.4.1)."""
        ...

    def close(self) -> None:
        """Let the device go. Never raises; closing twice is allowed."""
        ...


class Transfer:
    """One USB transfer as the device side sees it; compared by identity.

    ``endpoint``: address with the direction bit (0x80 = IN); 0x00 and 0x80 are the control pipe.
    ``length``: bytes that an IN transfer may return. ``setup``: 8 bytes for control, else empty.
    """

    __slots__ = ("data", "endpoint", "length", "setup")

    def __init__(self, endpoint: int, length: int = 0, *, setup: bytes = b"", data: bytes = b"") -> None:
        self.endpoint = endpoint
        self.length = length
        self.setup = setup
        self.data = data


class TransferResult(NamedTuple):
    """How a transfer ended. ``status``: 0 or a negative Linux errno; ``data``: of an IN transfer."""

    status: int
    data: bytes = b""


class ExportedDevice(Protocol):
    """The device side of USB: what the USB/IP server exports. Calls come from one thread at a time.

    ``complete`` is called exactly once for each transfer that was not cancelled: at once, from inside
    ``submit``, or later from any thread.
    """

    @property
    def device_descriptor(self) -> bytes:
        """18 bytes (USB 2.0, 9.6.1)."""
        ...

    @property
    def configuration_descriptor(self) -> bytes:
        """The whole configuration (USB 2.0, 9.6.3)."""
        ...

    @property
    def serial(self) -> str:
        """The serial number string."""
        ...

    @property
    def speed(self) -> int:
        """1 low, 2 full, 3 high (the numbers of Linux' usb_device_speed)."""
        ...

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        """Begin a transfer."""
        ...

    def cancel(self, transfer: Transfer) -> bool:
        """Take back a pending transfer: True if it will not complete, False if it already has."""
        ...

    def reset(self) -> None:
        """The host went away or came anew: pending transfers are dropped, the card loses its power."""
        ...


# --- Reader and card -------------------------------------------------------------------------------------------


class ShareMode(enum.Enum):
    """Whether others may use the card beside us (PC/SC part 5, 3.2.5)."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class CardLimits(NamedTuple):
    """What fits through reader and link: whole APDUs, in bytes, and whether extended length is understood."""

    extended: bool
    max_command: int
    max_response: int


class CardLock(Protocol):
    """Mutual exclusion with a deadline; handed into the pure rooms, which know no threads."""

    @property
    def held(self) -> bool:
        """True in the thread that holds it."""
        ...

    def hold(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        """Wait for the turn, and keep it to the end of the ``with`` block. Not re-entrant."""
        ...

    def alone(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        """The same, for a thread that may hold it already: then it goes on holding it."""
        ...


class CardConnection(Protocol):
    """A powered card.

    Once it was lost, every further call raises the same kind of error, with the same ``transient``:
    :class:`~demail_hw.errors.CardRemoved`, or :class:`~demail_hw.errors.DeviceLost` if it went with the reader. After
    :meth:`close` it is ``CardRemoved``. Nothing was sent then.

    No command outside a transaction: selected file, security environment and PIN state are a hidden global of
    the card, and belong to whoever holds the transaction.
    """

    @property
    def atr(self) -> bytes:
        """The answer to reset (ISO 7816-3, 8.2)."""
        ...

    @property
    def limits(self) -> CardLimits:
        """What fits through."""
        ...

    @property
    def epoch(self) -> int:
        """A number that changes whenever the card may have lost or changed its state without us:
        a reset, a power loss, somebody else's transaction. Meaningful inside a transaction."""
        ...

    def transaction(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        """Have the card alone to the end of the ``with`` block."""
        ...

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        """One command APDU, its response APDU: data and SW1-SW2, at least 2 bytes.

        ``RuntimeError`` outside a transaction of this thread.
        """
        ...

    def reset(self, *, deadline: Deadline) -> None:
        """Power the card off and on again; the epoch changes."""
        ...

    def close(self) -> None:
        """Power the card off and let it go. Never raises; closing twice is allowed."""
        ...


class Reader(Protocol):
    """One slot of a card reader."""

    @property
    def name(self) -> str:
        """For people; not an identity."""
        ...

    @property
    def serial(self) -> str | None:
        """The reader's serial number: its identity."""
        ...

    def card_present(self, *, deadline: Deadline) -> bool:
        """Is a card in the slot now?"""
        ...

    def wait_for_card(self, present: bool, *, deadline: Deadline) -> None:
        """Wait until a card is in the slot, or until there is none."""
        ...

    def connect(self, share: ShareMode = ShareMode.EXCLUSIVE, *, deadline: Deadline) -> CardConnection:
        """Power the card. :class:`~demail_hw.errors.NoCard` if there is none."""
        ...

    def close(self) -> None:
        """Let the reader go. Never raises; closing twice is allowed."""
        ...


class ReaderInfo(NamedTuple):
    """One reader as a listing shows it. ``address`` opens it; ``card``: None where it was not asked."""

    address: str
    name: str
    serial: str | None
    card: bool | None
    in_use: bool | None


class ReaderDriver(Protocol):
    """A scheme of reader addresses: what an entry point of the group ``demail_hw.readers`` names (a class
    without constructor arguments)."""

    @property
    def in_process(self) -> bool:
        """Do its cards begin and end with this process, so that nothing is known of them afterwards?"""
        ...

    @property
    def can_share(self) -> bool:
        """Can others use a card beside us? Where not, an address with ``?share=shared`` is refused above."""
        ...

    @property
    def parameters(self) -> frozenset[str]:
        """Which of ``ca``, ``cert``, ``key``, ``profile`` its addresses take. One with another is refused above."""
        ...

    def open(self, address: Address, *, timeouts: Timeouts) -> Reader:
        """Open the one reader that the address means."""
        ...

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:
        """The readers that the address can mean."""
        ...


# --- PINs ------------------------------------------------------------------------------------------------------


class PinOperation(enum.Enum):
    """What a PIN is sent for (ISO 7816-4, 11.5). An unblocking is noted as ``UNBLOCK`` of the PIN that gets a new
    value, and as ``UNBLOCK_ANOTHER`` of the one that the card compares."""

    VERIFY = "verify"
    CHANGE = "change"
    UNBLOCK = "unblock"
    UNBLOCK_ANOTHER = "unblock another"
    INITIALIZE = "initialize"


class PinRecordState(enum.Enum):
    """How the last command with a PIN ended, as far as it was noted. ``PENDING``: it was about to be sent.
    ``DECLINED``: the card accepted the PIN, and refused what was to be done with it. ``CLEARED``: a person forgot
    what was noted, and the tries are left that were known."""

    PENDING = "pending"
    REFUSED = "refused"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    CLEARED = "cleared"


@dataclasses.dataclass(frozen=True, slots=True)
class PinRecord:
    """What a ledger knows of a PIN: nothing from which it could be guessed.

    ``at``: when it was noted, with a time zone. ``retries_left``: the counter before the command, if it
    was told and can prove later what became of it; after a refusal, what is left by that. ``unsettled``: the
    change or unblocking before it whose end is not known either, as long as no accepted PIN has settled which counts;
    of several the last one, and with it the first. ``at_most``: where the counter was hidden, or proves nothing, the
    tries that there were at the most before the command.
    """

    state: PinRecordState
    operation: PinOperation
    at: datetime.datetime
    retries_left: int | None
    unsettled: "PinRecord | None" = None
    at_most: int | None = None


class PinPage(Protocol):
    """What a ledger knows of one card's PINs, while nobody else can read or write it."""

    @property
    def records(self) -> Mapping[str, PinRecord]:
        """By the PINs' names."""
        ...

    def write(self, records: Mapping[str, PinRecord | None]) -> None:
        """Note these, and forget those that are None; all or nothing, and lasting when it returns.

        Errors: :class:`~demail_hw.errors.PinRefused`.
        """
        ...


class PinLedger(Protocol):
    """Where the PIN guard writes before it sends. Cards are named by their ICCSN."""

    @property
    def state_dir(self) -> str | None:
        """The folder that a person has to name to the command line (``--state-dir``) for this ledger; None where the
        command line finds it itself, or cannot."""
        ...

    def records(self, card: str) -> Mapping[str, PinRecord]:
        """What is known of a card's PINs now. :class:`~demail_hw.errors.PinRefused` if it cannot be read."""
        ...

    def page(self, card: str, *, deadline: Deadline) -> AbstractContextManager[PinPage]:
        """A card's page, locked to the end of the ``with`` block, against other processes as well.

        Errors: :class:`~demail_hw.errors.PinRefused`, :class:`~demail_hw.errors.DeadlineExceeded`; no PIN was sent.
        """
        ...


# --- Keys ------------------------------------------------------------------------------------------------------


class KeyProvider(Protocol):
    """Where keys come from: a card, a PKCS#11 module, a pool of providers, software keys in tests.

    A context manager; its identities can be used until it is closed.
    """

    def identities(self) -> "Sequence[Identity]":
        """Every key that has a certificate."""
        ...

    def identity(self, role: "KeyRole | str") -> "Identity":
        """The key of this role, which its name names as well. ``ValueError`` if there is no such role.

        Errors: :class:`~demail_hw.errors.KeyNotFound` if there is no such key.
        """
        ...

    def close(self) -> None:
        """Let everything go. Never raises; closing twice is allowed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
