"""What somebody gives for a certificate: one is taken, everything else is called what it is."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from demail_hw.card_manager.certificate_input import LONGEST_INPUT, parse_certificate
from demail_hw.errors import CertificateError, Outcome
from demail_hw_simulators.ca import load_test_key, pem, pem_key, telesec_ca

CERTIFICATE = telesec_ca().intermediate
PEM, DER = pem(CERTIFICATE), CERTIFICATE.public_bytes(Encoding.DER)
KEY = load_test_key("other-ca")
REQUEST = x509.CertificateSigningRequestBuilder().subject_name(CERTIFICATE.subject).sign(KEY, hashes.SHA256())
PKCS8 = KEY.private_bytes(Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
BAG = {encoding: pkcs7.serialize_certificates([CERTIFICATE], encoding) for encoding in (Encoding.PEM, Encoding.DER)}


@pytest.mark.parametrize(
    "content",
    [
        PEM,
        DER,
        PEM.replace(b"\n", b"\r\n"),
        b"Bag Attributes\n    friendlyName: card\n" + PEM,
        b"\n\n" + PEM + b"\n\n",
        PEM.rstrip(b"\n"),
        PEM.replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
    ],
    ids=["PEM", "DER", "CR LF", "text before", "blank lines", "no line end", "old label"],
)
def test_one_certificate(content: bytes) -> None:
    assert parse_certificate(content) == CERTIFICATE


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"garbage", "is no certificate"),
        (bytes(100), "is no certificate"),
        (b"\xff" * 2048, "is no certificate"),
        (DER[:-1], "is no certificate"),
        (DER + b"\0", "is no certificate"),
        (DER[:100] + bytes(len(DER) - 100), "is no certificate"),
        (b"x" * (LONGEST_INPUT + 1), "longer than"),
        (PEM + PEM, "2 PEM blocks"),
        (pem_key(KEY) + PEM, "2 PEM blocks"),
        (pem_key(KEY), "a private key"),
        (PKCS8, "a private key"),
        (REQUEST.public_bytes(Encoding.PEM), "a certificate request"),
        (REQUEST.public_bytes(Encoding.DER), "a certificate request"),
        (BAG[Encoding.PEM], "PKCS#7"),
        (BAG[Encoding.DER], "PKCS#7"),
        (BAG[Encoding.PEM].replace(b"PKCS7", b"CERTIFICATE"), "called a certificate"),
        (PEM.replace(b"MII", b"!!!", 1), "called a certificate"),
        (PEM[: len(PEM) // 2], "called a certificate"),
        (b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", "something else in PEM"),
    ],
)
def test_anything_else(content: bytes, told: str) -> None:
    with pytest.raises(CertificateError, match=told) as caught:
        parse_certificate(content)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert caught.value.remedy


@pytest.mark.parametrize("content", [pem_key(KEY), PKCS8, pem_key(KEY).replace(b"PRIVATE KEY", b"CERTIFICATE")])
def test_no_error_repeats_a_private_key(content: bytes) -> None:
    secret = pem_key(KEY).decode().splitlines()[3]
    with pytest.raises(CertificateError) as caught:
        parse_certificate(content)
    error: BaseException | None = caught.value
    while error is not None:
        assert secret not in f"{error} {error!r} {error.args}"
        error = error.__cause__
