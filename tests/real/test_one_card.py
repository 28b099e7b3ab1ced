"""One card, three programs: what our driver, OpenSC and GnuPG say of it is the same."""

import pathlib
import re
from collections.abc import Callable
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw import KeyRole, open_provider
from demail_hw.errors import PinIncorrect, PinRefused
from demail_hw.keys.provider import TcosKeyProvider
from demail_hw.tcos.layout import PinName
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3
from opensc import OpenSc
from pcsc_client import require_pyscard
from pcscd import READERS, PrivatePcscd
from scdaemon import Scdaemon

DATA = b"De-Mail"
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
ROLES = {
    KeyRole.SIGNATURE: ("45", "C000"),
    KeyRole.ENCRYPTION: ("46", "C200"),
    KeyRole.AUTHENTICATION: ("47", "C500"),
}
"""OpenSC's identifier, and the file."""
OPENED_BY_GNUPG = ("C000", "C200")


@pytest.fixture
def card(pytestconfig: pytest.Config, pcscd: PrivatePcscd) -> SimulatedTcosCard:
    require_pyscard(pytestconfig)
    card = netkey3()
    pcscd.slot(card)
    return card


@pytest.fixture
def scdaemon(tool: Callable[[str], str], pcscd: PrivatePcscd, tmp_path: pathlib.Path) -> Callable[[], Scdaemon]:
    program = tool("/usr/lib/gnupg/scdaemon")
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    return lambda: Scdaemon(program, home, pcscd.environment)


def ours(pin: bytes = b"123456") -> TcosKeyProvider:
    return cast("TcosKeyProvider", open_provider(f"pcsc:{READERS[0]}", pin=lambda: pin))


def sign(provider: TcosKeyProvider, role: KeyRole) -> bytes:
    key = cast("rsa.RSAPrivateKey", provider.identity(role).private_key)
    return key.sign(DATA, PKCS1v15(), SHA256())


def digest() -> bytes:
    hasher = Hash(SHA256())
    hasher.update(DATA)
    return hasher.finalize()


@pytest.mark.usefixtures("card")
def test_the_serial_number(opensc: OpenSc, scdaemon: Callable[[], Scdaemon]) -> None:
    with ours() as provider:
        serial = provider.session.serial
    assert opensc.good("opensc-tool", "--serial").split("  ")[0].replace(" ", "").strip().startswith(serial)
    with scdaemon() as gnupg:
        assert gnupg.need("SERIALNO").values("SERIALNO")[0].split()[0] == serial


@pytest.mark.usefixtures("card")
def test_the_certificates(opensc: OpenSc, scdaemon: Callable[[], Scdaemon]) -> None:
    with ours() as provider:
        certificates = {role: provider.identity(role).certificate for role in ROLES}
    for role, (identifier, _) in ROLES.items():
        path = opensc.file("certificate.pem")
        opensc.good("pkcs15-tool", "--read-certificate", identifier, "--output", path)
        assert x509.load_pem_x509_certificate(pathlib.Path(path).read_bytes()) == certificates[role]
    with scdaemon() as gnupg:
        gnupg.need("SERIALNO")
        for role, (_, file) in ROLES.items():
            if file in OPENED_BY_GNUPG:
                read = gnupg.need(f"READCERT NKS-NKS3.{file}").data
                assert read == certificates[role].public_bytes(Encoding.DER)


def test_the_pin_counters(card: SimulatedTcosCard, opensc: OpenSc, scdaemon: Callable[[], Scdaemon]) -> None:
    with ours(b"888888") as provider:
        # Ours spends one, and no second.
        for expected in (PinIncorrect, PinRefused):
            with pytest.raises(expected):
                sign(provider, KeyRole.SIGNATURE)
    opensc.bad("pkcs15-tool", "--verify-pin", "--auth-id", "01", "--pin", "999999")
    with scdaemon() as gnupg:
        gnupg.need("SERIALNO")
        theirs = gnupg.pin_status()
    dump = opensc.good("pkcs15-tool", "--dump")
    opensc_says = [int(tries) for tries in re.findall(r"Tries left +: (\d)", dump)]
    with ours() as provider, provider.session.transaction() as deadline:
        known = provider.session.card
        left = {
            name: known.pin_status(known.profile.pin(name), deadline=deadline).retries_left
            for name in (PinName.GLOBAL, PinName.NKS_2, PinName.NKS_1, PinName.SIGG_1, PinName.SIGG_2)
        }
    assert theirs == (1, 3, 3, 3)
    assert opensc_says == [1, 3, 3, 3, 3, 3]  # global PIN and PUK, NetKey 83 and 81, SigG 81 and 83
    assert list(left.values()) == [1, 3, 3, 3, 3]
    assert card.file_system.root.pins[0].tries == 1


@pytest.mark.usefixtures("card")
def test_the_signature_of_the_signature_key(scdaemon: Callable[[], Scdaemon]) -> None:
    with ours() as provider:
        signature = sign(provider, KeyRole.SIGNATURE)
    with scdaemon() as gnupg:
        gnupg.need("SERIALNO")
        gnupg.set_data(DIGEST_INFO + digest())
        assert gnupg.need("PKSIGN --hash=sha256 NKS-NKS3.4531", "123456").data == signature


@pytest.mark.usefixtures("card")
def test_the_signature_of_the_authentication_key(opensc: OpenSc) -> None:
    with ours() as provider:
        signature = sign(provider, KeyRole.AUTHENTICATION)
    data, output = opensc.file("data", DATA), opensc.file("output")
    login = ("--login", "--pin", "222222", "--slot-index", "1", "--id", "47")
    opensc.good("pkcs11-tool", *login, "--sign", "-m", "SHA256-RSA-PKCS", "-i", data, "-o", output)
    assert pathlib.Path(output).read_bytes() == signature
