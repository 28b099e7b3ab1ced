"""Somebody's own keys and certificates for a simulated card, from files: ``80=key.pem``."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from demail_hw.errors import ConfigurationError
from demail_hw.identity import PrivateKey
from demail_hw_simulators.card.build import load_card_key
from demail_hw_simulators.card.personality import KeySpec, Personality, algorithm_of

__all__ = ["load_own_certificates", "load_own_keys"]

_T = TypeVar("_T")

_LONGEST: Final = 1 << 15
_PEM: Final = b"-----BEGIN"


def load_own_keys(assignments: Iterable[str], personality: Personality) -> dict[int, PrivateKey]:
    """Private keys, RSA or EC, PEM or DER, not encrypted, by reference: each of the kind that the card has there.

    Errors: :class:`~demail_hw.errors.ConfigurationError`.
    """
    return _load(assignments, personality, _own_key)


def load_own_certificates(
    assignments: Iterable[str], personality: Personality, keys: Mapping[int, PrivateKey]
) -> dict[int, x509.Certificate]:
    """Certificates, PEM or DER, by reference: each belongs to the key there, one of ``keys`` or the test key.

    Errors: :class:`~demail_hw.errors.ConfigurationError`.
    """

    def own_certificate(path: str, spec: KeySpec) -> x509.Certificate:
        certificate = _certificate(path)
        key = keys.get(spec.reference) or load_card_key(spec.test_key)
        if _public_key(certificate) != key.public_key():
            raise ConfigurationError(
                f"The certificate {path} does not belong to key {spec.reference:02X}.",
                file=path,
                remedy="Give the key of this certificate too.",
            )
        return certificate

    return _load(assignments, personality, own_certificate)


def _load(assignments: Iterable[str], personality: Personality, load: Callable[[str, KeySpec], _T]) -> dict[int, _T]:
    specs = {spec.reference: spec for spec in personality.all_keys()}
    loaded: dict[int, _T] = {}
    for assignment in assignments:
        reference, path = _split(assignment)
        if reference not in specs:
            known = ", ".join(f"{each:02X}" for each in sorted(specs))
            raise ConfigurationError(f"This card has no key {reference:02X}; it has these: {known}.", file=path)
        if reference in loaded:
            raise ConfigurationError(f"Key {reference:02X} is given twice.", file=path)
        loaded[reference] = load(path, specs[reference])
    return loaded


def _split(assignment: str) -> tuple[int, str]:
    """A reference in hexadecimal, and a path."""
    reference, equals, path = assignment.partition("=")
    try:
        number = bytes.fromhex(reference)
    except ValueError:
        number = b""
    if not equals or not path or len(number) != 1:
        raise ConfigurationError(f"{assignment!r} is not REFERENCE=FILE.", remedy="Write it like this: 80=key.pem.")
    return number[0], path


def _own_key(path: str, spec: KeySpec) -> PrivateKey:
    key = _private_key(path)
    try:
        algorithm = algorithm_of(key)
    except ValueError as error:
        raise ConfigurationError(f"The key file {path} does not fit: {error}.", file=path) from None
    if algorithm is not spec.algorithm:
        raise ConfigurationError(
            f"Key {spec.reference:02X} of this card is {spec.algorithm.value}, not {algorithm.value}.", file=path
        )
    return key


def _private_key(path: str) -> PrivateKey:
    content = _read(path)
    load = serialization.load_pem_private_key if _PEM in content else serialization.load_der_private_key
    try:
        key = load(content, None)
    except TypeError:
        raise ConfigurationError(
            f"The key file {path} is encrypted.", file=path, remedy="Store the test key without a passphrase."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"The file {path} holds no private key in PEM or DER.", file=path) from None
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise ConfigurationError(f"The key in {path} is neither RSA nor EC.", file=path)
    return key


def _certificate(path: str) -> x509.Certificate:
    content = _read(path)
    load = x509.load_pem_x509_certificate if _PEM in content else x509.load_der_x509_certificate
    try:
        return load(content)
    except ValueError:
        raise ConfigurationError(f"The file {path} holds no certificate in PEM or DER.", file=path) from None


def _public_key(certificate: x509.Certificate) -> object:
    """``None`` for one that cryptography does not know."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_LONGEST)
    except OSError as error:
        raise ConfigurationError(
            f"The file {path} cannot be read: {error.strerror}.", file=path, remedy="Check its path and owner."
        ) from error
