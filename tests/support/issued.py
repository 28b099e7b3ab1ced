"""Certificates as a card's holder could get them, good and bad; issued by the simulated CA's key."""

import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from demail_hw_simulators.ca import load_test_key

__all__ = ["TODAY", "issue"]

TODAY: Final = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
_DAY: Final = datetime.timedelta(days=1)
_FILLING: Final = ObjectIdentifier("1.3.6.1.4.1.99999.1")


def issue(
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    *,
    name: str = "imported",
    first_day: int = -1,
    last_day: int = 365,
    filling: int = 0,
) -> x509.Certificate:
    """``first_day``, ``last_day``: from today on. ``filling``: bytes that make it longer."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else's CA")]))
        .public_key(public_key)
        .serial_number(4711)
        .not_valid_before(TODAY + first_day * _DAY)
        .not_valid_after(TODAY + last_day * _DAY)
    )
    if filling:
        builder = builder.add_extension(x509.UnrecognizedExtension(_FILLING, bytes(filling)), critical=False)
    return builder.sign(load_test_key("telesec-intermediate"), hashes.SHA256())
