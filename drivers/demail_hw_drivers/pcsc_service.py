"""The functions of PC/SC as pyscard has them, with bytes for its lists and an exception for a return code.

Nothing here waits for a deadline: most of these functions have none.
"""

import contextlib
import enum
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from demail_hw.errors import ConfigurationError
from demail_hw.interfaces import Buffers
from demail_hw_drivers.pcsc_errors import PcscFailure, ReturnCode

__all__ = [
    "Attribute",
    "CardStatus",
    "Disposition",
    "PcscService",
    "ReaderState",
    "Share",
    "byte_list",
    "load_pyscard",
]

_SCOPE_SYSTEM: Final = 2
_T0_OR_T1: Final = 3
_UNSIGNED: Final = 0xFFFFFFFF
_MILLISECONDS: Final = 1000
_POWERED: Final = 0x10
_ABSENT: Final = 0x02
"""Bits of the state that pcsc-lite's SCardStatus gives."""


class Share(enum.IntEnum):
    """Who else may use the card (PC/SC part 5, 3.2.5). ``DIRECT``: the reader alone, with or without a card."""

    EXCLUSIVE = 1
    SHARED = 2
    DIRECT = 3


class Disposition(enum.IntEnum):
    """What happens to the card at the end of a connection (PC/SC part 5, 3.2.5)."""

    LEAVE = 0
    RESET = 1
    UNPOWER = 2


class Attribute(enum.IntEnum):
    """Attributes of a reader (PC/SC part 3, 3.1.3)."""

    VENDOR_IFD_SERIAL_NO = 0x00010103


class ReaderState(enum.IntFlag):
    """What SCardGetStatusChange says of a reader (PC/SC part 5, 3.2.4); the upper half counts the insertions."""

    UNAWARE = 0
    CHANGED = 0x0002
    EMPTY = 0x0010
    PRESENT = 0x0020
    EXCLUSIVE = 0x0080
    INUSE = 0x0100


class CardStatus(NamedTuple):
    """What SCardStatus says."""

    present: bool
    powered: bool
    atr: bytes


def load_pyscard() -> Any:
    """The module ``smartcard.scard``.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if pyscard is not installed.
    """
    try:
        return importlib.import_module("smartcard.scard")
    except ImportError as error:
        raise ConfigurationError(
            "Readers of PC/SC need pyscard, which is not installed.",
            remedy="pip install 'demail-hw[pcsc]'; on Linux it is compiled, which needs gcc and libpcsclite-dev.",
        ) from error


class _Numbers(list[int]):
    """The bytes of a command, which may hold a PIN: a traceback with locals does not show them."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def byte_list(command: Buffers) -> list[int]:
    """A command as pyscard takes it, until it is transmitted. The only bytes of ours that it was joined in are wiped;
    pyscard makes a copy of its own for the call, and frees that without wiping."""
    joined = bytearray().join(command)
    numbers = _Numbers(joined)
    joined[:] = bytes(len(joined))
    return numbers


class PcscService:
    """The functions of PC/SC. ``scard``: the module ``smartcard.scard``, or what does the same.

    All raise :class:`~demail_hw_drivers.pcsc_errors.PcscFailure`.
    """

    __slots__ = ("_scard",)

    def __init__(self, scard: Any) -> None:
        self._scard = scard

    @contextlib.contextmanager
    def context(self) -> Iterator[int]:
        """A connection to the service, to the end of the ``with`` block."""
        context = self.establish_context()
        try:
            yield context
        finally:
            self.release_context(context)

    def establish_context(self) -> int:
        """A connection to the service. Its calls go one after the other, so that one which does not return holds up
        all that come after it."""
        context: int = _call(self._scard.SCardEstablishContext, _SCOPE_SYSTEM)
        return context

    def release_context(self, context: int) -> None:
        """End a connection to the service, and what is open in it. Never fails."""
        self._scard.SCardReleaseContext(context)

    def list_readers(self, context: int) -> Sequence[str]:
        """The names of the readers."""
        try:
            names: Sequence[str] = _call(self._scard.SCardListReaders, context, [])
        except PcscFailure as failure:
            if failure.code == ReturnCode.E_NO_READERS_AVAILABLE:
                return ()
            raise
        return names

    def status_change(self, context: int, known: Mapping[str, int], seconds: float) -> Mapping[str, int]:
        """Wait until a reader's state is not what is ``known`` of it, at most so long; the states then.

        ``ValueError`` for a name that is not ASCII: pyscard 2.3.1 ends the whole process over one.
        """
        if not all(name.isascii() for name in known):
            raise ValueError("SCardGetStatusChange takes ASCII names only")
        states = [(name, int(state) & ~ReaderState.CHANGED.value) for name, state in known.items()]
        try:
            found = _call(self._scard.SCardGetStatusChange, context, int(seconds * _MILLISECONDS), states)
        except PcscFailure as failure:
            if failure.code == ReturnCode.E_TIMEOUT:
                return known
            raise
        return {name: state for name, state, _ in found}

    def connect(self, context: int, reader: str, share: Share) -> tuple[int, int]:
        """Handle and protocol of a card, or of a reader alone. A protocol is 1 for T=0, 2 for T=1."""
        protocols = 0 if share is Share.DIRECT else _T0_OR_T1
        card, protocol = _call(self._scard.SCardConnect, context, reader, share, protocols)
        return card, protocol

    @contextlib.contextmanager
    def reader_alone(self, context: int, name: str) -> Iterator[int]:
        """A handle of a reader without its card, to the end of the ``with`` block.

        It has to wait for the end of another program's transaction, and is refused with E_SHARING_VIOLATION while one
        has the card exclusively.
        """
        reader, _ = self.connect(context, name, Share.DIRECT)
        try:
            yield reader
        finally:
            self.disconnect(reader, Disposition.LEAVE)

    def reconnect(self, card: int, share: Share, disposition: Disposition) -> int:
        """Acknowledge that the card was reset, or reset it; its protocol then."""
        protocol: int = _call(self._scard.SCardReconnect, card, share, _T0_OR_T1, disposition)
        return protocol

    def disconnect(self, card: int, disposition: Disposition) -> None:
        """Give a handle back."""
        _call(self._scard.SCardDisconnect, card, disposition)

    def begin_transaction(self, card: int) -> None:
        """Wait for ever until no other program has a transaction, and begin ours."""
        _call(self._scard.SCardBeginTransaction, card)

    def end_transaction(self, card: int) -> None:
        """End our transaction."""
        _call(self._scard.SCardEndTransaction, card, Disposition.LEAVE)

    def status(self, card: int) -> CardStatus:
        """How the card is."""
        _, state, _, atr = _call(self._scard.SCardStatus, card)
        return CardStatus(present=not state & _ABSENT, powered=bool(state & _POWERED), atr=bytes(atr))

    def transmit(self, card: int, protocol: int, command: list[int]) -> bytes:
        """One command APDU, whose numbers are zeros afterwards; the answer can be shorter than a status word."""
        try:
            return bytes(_call(self._scard.SCardTransmit, card, protocol, command))
        finally:
            for index in range(len(command)):  # a slice assignment leaves a copy of what was there in the heap
                command[index] = 0

    def control(self, card: int, code: int) -> bytes:
        """A control request without data to the reader's driver."""
        return bytes(_call(self._scard.SCardControl, card, code, []))

    def control_code(self, function: int) -> int:
        """The control code of a function: it differs between systems (PC/SC part 10, 2.2)."""
        code: int = self._scard.SCARD_CTL_CODE(function)
        return code

    def attribute(self, card: int, attribute: Attribute) -> bytes:
        """An attribute of the reader."""
        return bytes(_call(self._scard.SCardGetAttrib, card, attribute))


def _call(function: Callable[..., Any], *arguments: object) -> Any:
    """What a function gives beside its return code. The code comes first: after a failure the rest is garbage."""
    answer = function(*arguments)
    code, *values = answer if isinstance(answer, list | tuple) else (answer,)
    if code != ReturnCode.S_SUCCESS:
        raise PcscFailure(code & _UNSIGNED)
    return values[0] if len(values) == 1 else values
