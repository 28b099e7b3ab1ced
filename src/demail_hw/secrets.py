"""A PIN in memory: one buffer, never shown, never copied by us, wiped after use."""

from types import TracebackType
from typing import Final, NoReturn, Protocol, Self

from demail_hw.interfaces import Buffer, PinOperation

__all__ = ["Pin", "PinPermit", "PinSource"]


_GUARD_KEY: Final = object()


class Pin:
    """A PIN that redacts itself: no repr, no str, no pickle, no comparison; wiped at the end of ``with``.

    ``Pin(secret)`` takes over a bytearray (and wipes it later), and copies any other buffer.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: Buffer) -> None:
        self._secret: bytearray | memoryview = secret if isinstance(secret, bytearray) else bytearray(secret)

    @classmethod
    def in_place(cls, memory: memoryview) -> Self:
        """The PIN that lies in this writable memory: it is not copied, but wiped there later, and then let go."""
        pin = cls(bytearray())
        pin._secret = memory
        return pin

    @property
    def buffer(self) -> memoryview:
        """The PIN where it lies. ``ValueError`` after it was wiped."""
        if not self._secret:
            raise ValueError("the PIN was wiped")
        return memoryview(self._secret)

    def __len__(self) -> int:
        return len(self._secret)

    def wipe(self) -> None:
        """Overwrite the buffer with zeros and forget it. Who still has a view of it sees the zeros."""
        secret = self._secret
        for index in range(len(secret)):
            secret[index] = 0
        self._secret = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return "<Pin>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PIN is not pickled")

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise TypeError("a PIN is not compared")


class PinSource(Protocol):
    """Where a PIN comes from, asked when it is needed."""

    def read(self) -> Pin:
        """A fresh :class:`Pin`, for the caller to wipe. :class:`~demail_hw.errors.PinRequired` if there is none."""
        ...


class PinPermit:
    """The leave to send one PIN command, once. Only ``demail_hw.keys.pin_guard`` issues it.

    ``operation``: the one that it is good for. ``reference``: P2 of the command (ISO 7816-4, 11.5.1). ``secrets``:
    what the data field is made of, in order.
    """

    __slots__ = ("_secrets", "operation", "reference")

    def __init__(self, key: object, operation: PinOperation, reference: int, secrets: tuple[Pin, ...]) -> None:
        if key is not _GUARD_KEY:
            raise TypeError("only the PIN guard issues permits")
        self.operation = operation
        self.reference = reference
        self._secrets: tuple[Pin, ...] | None = secrets

    @property
    def spent(self) -> bool:
        """True once a command was built from it."""
        return self._secrets is None

    def spend(self, *operations: PinOperation) -> tuple[memoryview, ...]:
        """The data field, once and for one of these operations: ``RuntimeError`` the second time or for another."""
        if self.operation not in operations:
            raise RuntimeError(f"a permit to {self.operation.value} a PIN is good for nothing else")
        secrets, self._secrets = self._secrets, None
        if secrets is None:
            raise RuntimeError("a PIN permit is good for one command")
        return tuple(pin.buffer for pin in secrets)

    def __repr__(self) -> str:
        return f"<PinPermit to {self.operation.value} {self.reference:#04x}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PIN permit is not pickled")
