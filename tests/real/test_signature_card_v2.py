"""OpenSC, which knows the Signature Card V2 by configuration only, and no EC key of it, reads the simulated one.

So it judges files and certificates, and OpenSSL their chain and the signatures that our driver gets. No foreign
client asks the card for a signature here.
"""

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from demail_hw import KeyRole, open_provider
from demail_hw_simulators.ca import pem, telesec_ca
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import load_card_key, open_card
from opensc import OpenSc
from openssl_judge import DATA, OpenSsl
from pcsc_client import require_pyscard
from pcscd import READERS, PrivatePcscd

CONFIGURATION = """app default {
  framework pkcs15 {
    use_file_caching = false;
  }
  card_atr 3b:9f:96:81:31:fe:9d:00:64:05:a0:03:04:31:c0:73:f7:01:d0:00:90:00:28 {
    driver = "tcos";
    type = 8003;
  }
}
"""
VERIFY, MSE, PSO = 0x20, 0x22, 0x2A
KEYS = {"45": "nks-80", "46": "nks-81", "47": "nks-82"}
SERIALS = {
    "signature-card-v2": "89 49 01 73 51 00 80 60 02 15",
    "signature-card-v2-brainpool": "89 49 01 73 51 00 80 60 02 16",
}
NAMES = {"signature-card-v2": "p256", "signature-card-v2-brainpool": "brainpool"}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def card(pcscd: PrivatePcscd, name: str) -> SimulatedTcosCard:
    card = open_card(name)
    pcscd.slot(card)
    return card


@pytest.fixture
def configured(opensc: OpenSc) -> OpenSc:
    opensc.file("opensc.conf", CONFIGURATION.encode())
    return opensc


@pytest.mark.usefixtures("card")
def test_without_configuration_opensc_does_not_know_it(opensc: OpenSc) -> None:
    assert opensc.run("opensc-tool", "--name").stdout == "Unsupported card\n"


@pytest.mark.usefixtures("card")
def test_with_configuration_it_lists_the_certificates(configured: OpenSc, name: str) -> None:
    assert configured.good("opensc-tool", "--name") == "TCOS\n"
    assert SERIALS[name] in configured.good("opensc-tool", "--serial")
    said = configured.good("pkcs15-tool", "--dump")
    assert said.count("X.509 Certificate [") == 3
    # It has a fixed table, in which every key is RSA-2048.
    assert said.count("ModLength      : 2048") == 3
    # The PINs 03 and 04 are not in that table.
    assert "PIN [" not in said


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("identifier", KEYS)
def test_the_certificates_are_of_the_keys_and_the_chain(
    tool: Callable[[str], str], configured: OpenSc, name: str, identifier: str
) -> None:
    path = configured.file("certificate.pem")
    configured.good("pkcs15-tool", "--read-certificate", identifier, "--output", path)
    certificate = x509.load_pem_x509_certificate((configured.folder / "certificate.pem").read_bytes())
    key = load_card_key(f"signature-card-v2-{NAMES[name]}-{KEYS[identifier]}")
    assert certificate.public_key() == key.public_key()
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    chain = configured.file("chain.pem", b"".join(map(pem, telesec_ca().chain)))
    said = OpenSsl(tool("openssl"), configured).run("verify", "-x509_strict", "-CAfile", chain, path)
    assert said == f"{path}: OK\n".encode()


@pytest.mark.parametrize("key", KEYS)
def test_opensc_can_use_no_key(configured: OpenSc, card: SimulatedTcosCard, key: str) -> None:
    files = ("-i", configured.file("input", bytes(32)), "-o", configured.file("output"))
    said = configured.bad("pkcs15-crypt", "--sign", "--key", key, "--pin", "123456", *files, "--raw")
    assert "Requested object not found" in said
    assert [card.instructions[instruction] for instruction in (VERIFY, MSE, PSO)] == [0, 0, 0]


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("identifier", "role"),
    [("45", KeyRole.SIGNATURE), ("46", KeyRole.ENCRYPTION), ("47", KeyRole.AUTHENTICATION)],
)
@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda each: each.name)
def test_openssl_verifies_what_our_driver_gets(
    pytestconfig: pytest.Config,
    tool: Callable[[str], str],
    configured: OpenSc,
    identifier: str,
    role: KeyRole,
    algorithm: hashes.HashAlgorithm,
) -> None:
    require_pyscard(pytestconfig)
    with open_provider(f"pcsc:{READERS[0]}", pin=lambda: b"123456") as provider:
        key = provider.identity(role).private_key
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        signature = configured.file("signature", key.sign(DATA, ec.ECDSA(algorithm)))
    OpenSsl(tool("openssl"), configured).verify(identifier, signature, algorithm.name)


def test_the_card_survives_what_opensc_s_other_drivers_ask(
    configured: OpenSc, opensc: OpenSc, card: SimulatedTcosCard
) -> None:
    opensc.file("opensc.conf", b"app default {}\n")
    opensc.run("pkcs15-tool", "--dump")
    asked = card.instructions.total()
    assert asked > 30
    configured.file("opensc.conf", CONFIGURATION.encode())
    assert "X.509 Certificate [" in configured.good("pkcs15-tool", "--list-certificates")
    assert card.file_system.root.pins[3].tries == 3
