"""The chain above a certificate: by signatures, whatever the names say."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from demail_hw.keys.certificate_chain import build_chain

BEGIN = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    subject, above = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (name, issuer))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(BEGIN)
        .not_valid_after(BEGIN + datetime.timedelta(9999))
        .sign(issuer_key, hashes.SHA256())
    )


ROOT_KEY, BETWEEN_KEY, HOLDER_KEY, STRANGE_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
ROOT = certificate("root", ROOT_KEY, "root", ROOT_KEY)
BETWEEN = certificate("between", BETWEEN_KEY, "root", ROOT_KEY)
HOLDER = certificate("holder", HOLDER_KEY, "between", BETWEEN_KEY)
IMPOSTORS = {
    "between": certificate("between", STRANGE_KEY, "root", ROOT_KEY),
    "root": certificate("root", STRANGE_KEY, "root", STRANGE_KEY),
}


@pytest.mark.parametrize("issuers", [(BETWEEN, ROOT), (ROOT, BETWEEN)], ids=["in order", "the other way round"])
def test_nearest_first(issuers: tuple[x509.Certificate, ...]) -> None:
    assert build_chain(HOLDER, issuers) == (BETWEEN, ROOT)


@pytest.mark.parametrize("impostor", IMPOSTORS.values(), ids=IMPOSTORS)
def test_an_impostor_of_the_same_name_is_passed_over(impostor: x509.Certificate) -> None:
    assert build_chain(HOLDER, (impostor, BETWEEN, ROOT)) == (BETWEEN, ROOT)


def test_an_impostor_alone_is_no_issuer() -> None:
    assert build_chain(HOLDER, (IMPOSTORS["between"], ROOT)) == ()
    assert build_chain(HOLDER, (BETWEEN, IMPOSTORS["root"])) == (BETWEEN,)


def test_a_chain_that_goes_round_ends() -> None:
    one = certificate("one", ROOT_KEY, "other", BETWEEN_KEY)
    other = certificate("other", BETWEEN_KEY, "one", ROOT_KEY)
    assert build_chain(HOLDER, (one, other)) == ()
    assert build_chain(one, (one, other)) == (other, one)
