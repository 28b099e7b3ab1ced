"""Keys in memory that behave as a card's: a KeyProvider without any hardware, for tests of what uses one.

The same roles, certificates and refusals as a NetKey card, over software RSA keys made anew each time.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import rsa

from demail_hw.errors import KeyNotFound
from demail_hw.identity import Identity, KeyRole
from demail_hw.keys.private_keys import CardRsaPrivateKey
from demail_hw_simulators.ca import SimulatedCa
from demail_hw_simulators.card.raw_rsa import RawRsa

__all__ = ["SoftwareKeyProvider"]

_PUBLIC_EXPONENT: Final = 65537


class _SoftwareKey:
    """:class:`~demail_hw.keys.private_keys.RsaOperations` on a software key."""

    def __init__(self, key: rsa.RSAPrivateKey, *, raw: bool, decrypts: bool) -> None:
        self._key = RawRsa(key)
        self.raw = raw
        self.decrypts = decrypts
        self.closed = False

    def compute_digital_signature(self, data: bytes) -> bytes:
        """PKCS#1 v1.5 of a DigestInfo."""
        self._check_open()
        return self._key.sign(data)

    def raw_rsa(self, block: bytes) -> bytes:
        """The raw operation."""
        self._check_open()
        return self._key.apply(block)

    def decipher(self, block: bytes) -> bytes:
        """The same."""
        return self.raw_rsa(block)

    def suspect(self) -> None:
        """There is no card to look at."""

    def _check_open(self) -> None:
        if self.closed:
            raise KeyNotFound("The software keys are closed.")


class SoftwareKeyProvider:
    """A :class:`~demail_hw.interfaces.KeyProvider` with one key of each role, certified by ``ca``."""

    def __init__(self, ca: SimulatedCa, *, key_size: int = 2048) -> None:
        self._operations: list[_SoftwareKey] = []
        self._identities = {role: self._make(role, ca, key_size) for role in KeyRole}

    def _make(self, role: KeyRole, ca: SimulatedCa, key_size: int) -> Identity:
        key = rsa.generate_private_key(_PUBLIC_EXPONENT, key_size)
        operations = _SoftwareKey(key, raw=role is not KeyRole.SIGNATURE, decrypts=role is KeyRole.ENCRYPTION)
        self._operations.append(operations)
        return Identity(
            role=role,
            label=f"software {role.value} key",
            private_key=CardRsaPrivateKey(key.public_key(), operations),
            certificate=ca.issue_card_certificate(role, key.public_key()),
            chain=(ca.intermediate, ca.root),
        )

    def identities(self) -> Sequence[Identity]:
        """All three."""
        return tuple(self._identities.values())

    def identity(self, role: KeyRole | str) -> Identity:
        """The key of this role, which its name names as well. ``ValueError`` if there is no such role."""
        return self._identities[KeyRole(role)]

    def close(self) -> None:
        """Every later operation fails."""
        for operations in self._operations:
            operations.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
