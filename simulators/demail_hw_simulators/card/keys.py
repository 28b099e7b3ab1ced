"""Private keys as a card keeps them: by reference, with what they may do (ISO 7816-4, 10.3)."""

from typing import Final, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils

from demail_hw.identity import PrivateKey
from demail_hw.iso7816.status import StatusWord
from demail_hw.tcos.layout import ControlReferenceTemplate
from demail_hw_simulators.card.access import AccessRule
from demail_hw_simulators.card.raw_rsa import PADDING_OVERHEAD, RawRsa, modulus_length
from demail_hw_simulators.card.refusal import Refused

__all__ = ["CardKey", "EcCardKey", "RsaCardKey", "card_key"]

_ENCRYPTION_PADDING: Final = b"\x00\x02"
_SHORTEST_PADDING: Final = 8
_END_OF_PADDING: Final = b"\x00"


class RsaCardKey:
    """An RSA key. ``templates``: what it may be set for; ``rule``: the PINs that open it."""

    __slots__ = ("_maximum_input", "_raw", "modulus_length", "public_key", "reference", "rule", "templates")

    def __init__(
        self,
        reference: int,
        private_key: rsa.RSAPrivateKey,
        *,
        templates: frozenset[ControlReferenceTemplate],
        rule: AccessRule,
    ) -> None:
        self.reference = reference
        self.templates = templates
        self.rule = rule
        self.public_key = private_key.public_key()
        self.modulus_length = modulus_length(private_key)
        self._maximum_input = self.modulus_length - PADDING_OVERHEAD
        self._raw = RawRsa(private_key)

    def sign(self, data: bytes) -> bytes:
        """A signature by PKCS #1 v1.5; what is signed is not looked at. :class:`Refused` with 6A87."""
        if len(data) > self._maximum_input:
            raise Refused(StatusWord.NC_INCONSISTENT_WITH_P1_P2)
        return self._raw.sign(data)

    def decipher(self, indicator: int, cryptogram: bytes, *, unpad: bool) -> bytes:  # noqa: ARG002
        """The plain private operation; ``unpad``: without the padding of PKCS #1 v1.5 then.

        :class:`Refused` with 6A87 for another length, 6A80 for what is no block.
        """
        if len(cryptogram) != self.modulus_length:
            raise Refused(StatusWord.NC_INCONSISTENT_WITH_P1_P2)
        try:
            block = self._raw.apply(cryptogram)
        except ValueError:
            raise Refused(StatusWord.INCORRECT_DATA_FIELD) from None
        return _message(block) if unpad else block


def _message(block: bytes) -> bytes:
    """What was encrypted (RFC 8017, 7.2.2). :class:`Refused` with 6A80 if the padding is wrong."""
    filling, end, message = block[len(_ENCRYPTION_PADDING) :].partition(_END_OF_PADDING)
    if not block.startswith(_ENCRYPTION_PADDING) or len(filling) < _SHORTEST_PADDING or not end:
        raise Refused(StatusWord.INCORRECT_DATA_FIELD)
    return message


_HASHES: Final = (
    hashes.SHA1(),  # noqa: S303  a card signs what it is given
    hashes.SHA224(),
    hashes.SHA256(),
    hashes.SHA384(),
    hashes.SHA512(),
)


class EcCardKey:
    """A key on an elliptic curve; attributes as those of :class:`RsaCardKey`.

    ``deterministic``: the same signature for the same digest (RFC 6979).
    """

    __slots__ = ("_length", "_private_key", "_schemes", "public_key", "reference", "rule", "templates")

    def __init__(
        self,
        reference: int,
        private_key: ec.EllipticCurvePrivateKey,
        *,
        templates: frozenset[ControlReferenceTemplate],
        rule: AccessRule,
        deterministic: bool,
    ) -> None:
        self.reference = reference
        self.templates = templates
        self.rule = rule
        self.public_key = private_key.public_key()
        self._private_key = private_key
        self._length = (private_key.curve.key_size + 7) // 8
        # By the length of the digest, which is all that the card sees of the hash.
        self._schemes = {
            each.digest_size: ec.ECDSA(utils.Prehashed(each), deterministic_signing=deterministic) for each in _HASHES
        }

    def sign(self, data: bytes) -> bytes:
        """ECDSA of a digest: r and s, each as long as the order (BSI TR-03111, 5.2.1).

        :class:`Refused` with 6A87 if no usual hash is so long.
        """
        scheme = self._schemes.get(len(data))
        if scheme is None:
            raise Refused(StatusWord.NC_INCONSISTENT_WITH_P1_P2)
        r, s = utils.decode_dss_signature(self._private_key.sign(data, scheme))
        return r.to_bytes(self._length, "big") + s.to_bytes(self._length, "big")

    def decipher(self, indicator: int, cryptogram: bytes, *, unpad: bool) -> bytes:  # noqa: ARG002
        """ECDH: the x of the shared point (BSI TR-03111, 4.3.1) for a point, behind the indicator 00.

        GnuPG sends it so; what a real card answers is not public, and this is assumed. :class:`Refused` with 6A80.
        """
        if indicator:
            raise Refused(StatusWord.INCORRECT_DATA_FIELD)
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._private_key.curve, cryptogram)
            return self._private_key.exchange(ec.ECDH(), point)
        except ValueError:
            raise Refused(StatusWord.INCORRECT_DATA_FIELD) from None


CardKey: TypeAlias = RsaCardKey | EcCardKey


def card_key(
    reference: int,
    private_key: PrivateKey,
    *,
    templates: frozenset[ControlReferenceTemplate],
    rule: AccessRule,
    deterministic: bool = False,
) -> CardKey:
    """The card's side of a private key. ``deterministic``: of ECDSA, see :class:`EcCardKey`; RSA is so anyway."""
    if isinstance(private_key, rsa.RSAPrivateKey):
        return RsaCardKey(reference, private_key, templates=templates, rule=rule)
    return EcCardKey(reference, private_key, templates=templates, rule=rule, deterministic=deterministic)
