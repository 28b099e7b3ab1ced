"""Somebody's own keys and certificates for a simulated card, from files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from demail_hw.errors import ConfigurationError
from demail_hw.identity import PrivateKey
from demail_hw_simulators.card.build import load_card_key
from demail_hw_simulators.card.key_names import KeyName, KeyNameError, KeyPlace, places_of
from demail_hw_simulators.card.personality import KeySpec, Personality, algorithm_of

__all__ = ["load_own_certificates", "load_own_keys"]

_T = TypeVar("_T")

_LONGEST: Final = 1 << 15
_PEM: Final = b"-----BEGIN"
_KEY_REMEDY: Final = "Give an RSA or EC private key, as openssl genpkey writes it."


def load_own_keys(files: Mapping[KeyName, str], personality: Personality) -> dict[KeyName, PrivateKey]:
    """Private keys, RSA or EC, PEM or DER, not encrypted, by name: each of the kind that the card has there.

    ``files``: their paths, by name.
    Errors: :class:`~demail_hw.errors.ConfigurationError`.
    """
    specs = personality.keys()
    return _load(files, personality, lambda path, place: _own_key(path, specs[place]))


def load_own_certificates(
    files: Mapping[KeyName, str], personality: Personality, keys: Mapping[KeyName, PrivateKey]
) -> dict[KeyName, x509.Certificate]:
    """Certificates, PEM or DER, by name: each belongs to the key there, one of ``keys`` or the test key.

    ``files``: their paths, by name.
    Errors: :class:`~demail_hw.errors.ConfigurationError`.
    """
    own = {place: keys[name] for name, place in places_of(keys, personality.keys()).items()}

    def own_certificate(path: str, place: KeyPlace) -> x509.Certificate:
        certificate = _certificate(path)
        key = own.get(place) or load_card_key(personality.keys()[place].test_key)
        if _public_key(certificate) != key.public_key():
            how = "instead" if place in own else "too"
            raise ConfigurationError(
                f"The certificate {path} does not belong to key {place.reference:02X}.",
                file=path,
                remedy=f"Give the key of this certificate {how} (--key {place}=FILE).",
            )
        return certificate

    return _load(files, personality, own_certificate)


def _load(
    files: Mapping[KeyName, str], personality: Personality, load: Callable[[str, KeyPlace], _T]
) -> dict[KeyName, _T]:
    try:
        places = places_of(files, personality.keys())
    except KeyNameError as error:
        text = str(error)
        raise ConfigurationError(
            f"{text[0].upper()}{text[1:]}.", file=files[error.name], remedy=error.remedy
        ) from None
    return {name: load(path, places[name]) for name, path in files.items()}


def _own_key(path: str, spec: KeySpec) -> PrivateKey:
    key = _private_key(path)
    remedy = f"Give a key of the kind {spec.algorithm.value}, or take another card (--personality)."
    try:
        algorithm = algorithm_of(key)
    except ValueError as error:
        raise ConfigurationError(f"The key file {path} does not fit: {error}.", file=path, remedy=remedy) from None
    if algorithm is not spec.algorithm:
        raise ConfigurationError(
            f"Key {spec.reference:02X} of this card is {spec.algorithm.value}, not {algorithm.value}.",
            file=path,
            remedy=remedy,
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
        raise ConfigurationError(
            f"The file {path} holds no private key in PEM or DER.", file=path, remedy=_KEY_REMEDY
        ) from None
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise ConfigurationError(f"The key in {path} is neither RSA nor EC.", file=path, remedy=_KEY_REMEDY)
    return key


def _certificate(path: str) -> x509.Certificate:
    content = _read(path)
    load = x509.load_pem_x509_certificate if _PEM in content else x509.load_der_x509_certificate
    try:
        return load(content)
    except ValueError:
        raise ConfigurationError(
            f"The file {path} holds no certificate in PEM or DER.",
            file=path,
            remedy="Give an X.509 certificate, as openssl x509 writes it.",
        ) from None


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
