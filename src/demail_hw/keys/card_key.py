"""What a card does with one of its keys: in a transaction, and behind its PIN."""

from typing import Final, Protocol

from demail_hw.errors import AlgorithmNotSupported, CardError, Layer
from demail_hw.interfaces import Buffer, Deadline
from demail_hw.iso7816.status import StatusWord
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.pin_guard import PinGuard
from demail_hw.keys.validity import ValidityWatch
from demail_hw.tcos.layout import KeyOperation, KeySlot, PinSlot

__all__ = ["CardKey"]

_UNUSABLE: Final = frozenset(
    {
        StatusWord.AUTHENTICATION_METHOD_BLOCKED,
        StatusWord.REFERENCE_DATA_NOT_USABLE,
        StatusWord.CONDITIONS_OF_USE_NOT_SATISFIED,
        StatusWord.FUNCTION_NOT_SUPPORTED,
        StatusWord.REFERENCED_DATA_NOT_FOUND,
    }
)
"""What a card says where it may be the key that it refuses, rather than what it was given."""


class _CardOperation(Protocol):
    def __call__(self, key: KeySlot, data: Buffer, /, *, deadline: Deadline) -> bytes: ...


class CardKey:
    """One key's :class:`~demail_hw.keys.private_keys.RsaOperations`: each opens a transaction of its own.

    ``validity``: looked at before each signature; None without a certificate.
    """

    __slots__ = ("_card", "_guard", "_key", "_longest_block", "_pin", "_session", "_validity", "decrypts", "raw")

    def __init__(
        self,
        session: CardSession,
        guard: PinGuard,
        key: KeySlot,
        pin: PinSlot,
        *,
        validity: ValidityWatch | None = None,
    ) -> None:
        self._session = session
        self._card = session.card
        self._guard = guard
        self._key = key
        self._pin = pin
        self._validity = validity
        self._longest_block = session.card.longest_block(key)
        self.raw = key.operation is KeyOperation.DECIPHER
        self.decrypts = key.decrypts

    def compute_digital_signature(self, data: bytes) -> bytes:
        """PSO CDS."""
        self._look_at_validity()
        return self._perform(self._card.compute_digital_signature, data)

    def raw_rsa(self, block: bytes) -> bytes:
        """PSO DECIPHER, for a signature."""
        self._look_at_validity()
        return self.decipher(block)

    def decipher(self, block: bytes) -> bytes:
        """PSO DECIPHER. Old messages are decrypted long after the certificate expired, so that is not looked at."""
        if len(block) > self._longest_block:
            raise self._too_long(block)
        return self._perform(self._card.decipher, block)

    def _look_at_validity(self) -> None:
        if self._validity is not None:
            self._validity.look()

    def _too_long(self, block: bytes) -> AlgorithmNotSupported:
        return AlgorithmNotSupported(
            f"The {self._key.label} works on blocks of {len(block)} bytes, and only {self._longest_block} fit into a "
            "command through this reader; nothing was sent.",
            remedy="Use a reader with extended APDUs: this card takes no command in pieces.",
            layer=Layer.READER,
        )

    def suspect(self) -> None:
        """Look at the card again before anything else."""
        self._session.suspect()

    def _perform(self, operation: _CardOperation, data: bytes) -> bytes:
        try:
            return self._perform_once(operation, data)
        except BaseException as error:  # an interrupt leaves as open what the card did as an error
            self._session.suspect()
            if isinstance(error, CardError) and error.status in _UNUSABLE and not error.remedy:
                error.remedy = self._guard.remedies.refused_key(self._pin)
            raise

    def _perform_once(self, operation: _CardOperation, data: bytes) -> bytes:
        # What the session's own transaction() does, without its generator: here every signature comes by.
        deadline = self._session.deadline()
        with self._session.connection.transaction(deadline=deadline):
            self._session.ensure_same_card(deadline=deadline)
            if self._card.is_verified(self._pin) or self._is_open_still(deadline):
                return operation(self._key, data, deadline=deadline)
        # Outside: a person may need longer to type than a command may take.
        with self._guard.ask(self._pin) as secret, self._session.transaction() as deadline:
            self._guard.open(self._card, self._pin, secret, deadline=deadline)
            return operation(self._key, data, deadline=deadline)

    def _is_open_still(self, deadline: Deadline) -> bool:
        if not self._guard.is_open(self._card, self._pin, deadline=deadline):
            return False
        self._card.believe(self._pin)  # so that it is asked once, and not before every signature
        return True
