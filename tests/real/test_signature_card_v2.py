"""OpenSC, which knows the Signature Card V2 by configuration only, and no EC key of it, reads the simulated one.

So it judges files and certificates, and OpenSSL their chain. What the keys compute no foreign client judges here.
"""

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from demail_hw_simulators.ca import pem, telesec_ca
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import load_card_key, open_card
from opensc import OpenSc
from openssl_judge import OpenSsl
from pcscd import PrivatePcscd

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
KEYS = {"45": "nks-80", "46": "nks-81", "47": "nks-82"}
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
    assert opensc.run("opensc-tool", "--name").stdout != "TCOS\n"


@pytest.mark.usefixtures("card")
def test_with_configuration_it_lists_the_certificates(configured: OpenSc) -> None:
    assert configured.good("opensc-tool", "--name") == "TCOS\n"
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
