"""Certificates that the card manager wrote, as OpenSC and GnuPG find them; and requests that OpenSSL judges."""

import contextlib
import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certificate_bench import DER, IMPORTED, carry_out, ef, managing, put, write
from demail_hw.card_manager import open_manager
from demail_hw.card_manager.general_names import alternative_names
from demail_hw.card_manager.requests import parse_subject, request_certificate
from demail_hw.identity import KeyRole
from demail_hw.interfaces import Timeouts
from demail_hw.keys.bare_key import bare_private_key
from demail_hw.keys.card_session import CardSession
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw.tcos.layout import StorageForm
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import load_card_key, netkey3, open_card
from demail_hw_simulators.sim_reader import SimulatedReader
from issued import issue
from opensc import OpenSc
from pcsc_client import require_pyscard
from pcscd import READERS, PrivatePcscd
from scdaemon import Scdaemon

CARD_CERTIFICATE = 0xC000
SIGNATURE = "45"
"""What OpenSC calls the certificates of the signature key; it shows the first that is there."""


def imported(personality: str, key: str, name: str, form: StorageForm) -> tuple[SimulatedTcosCard, x509.Certificate]:
    """A card without a certificate of its own, and what was written to it."""
    card = open_card(personality)
    certificate = issue(load_card_key(key).public_key())
    with managing(card) as certificates:
        carry_out(certificates, certificates.plan_import(certificate, certificates.file(name), form=form))
    card.power_off()
    return card, certificate


def read_by_opensc(opensc: OpenSc, identifier: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(opensc.good("pkcs15-tool", "--read-certificate", identifier).encode())


def test_opensc_reads_the_certificate_of_a_netkey_3_card(opensc: OpenSc, pcscd: PrivatePcscd) -> None:
    card = netkey3()
    put(card, b"", CARD_CERTIFICATE)
    write(card)
    pcscd.slot(card)
    assert read_by_opensc(opensc, SIGNATURE) == IMPORTED
    listed = opensc.good("pkcs15-tool", "--list-certificates")
    assert "df024331" in listed.lower()


def test_opensc_reads_what_went_through_pcsc(
    pytestconfig: pytest.Config, opensc: OpenSc, pcscd: PrivatePcscd
) -> None:
    require_pyscard(pytestconfig)
    card = netkey3()
    put(card, b"", CARD_CERTIFICATE)
    pcscd.slot(card)
    with open_manager(f"pcsc:{READERS[0]}") as manager:
        file = manager.certificates.file_for(KeyRole.SIGNATURE)
        carry_out(manager.certificates, manager.certificates.plan_import(IMPORTED, file))
    assert read_by_opensc(opensc, SIGNATURE) == IMPORTED
    with open_manager(f"pcsc:{READERS[0]}") as manager:
        carry_out(manager.certificates, manager.certificates.plan_erase(file))
    assert set(ef(card).content) == {0xFF}


@pytest.mark.parametrize(
    ("personality", "key", "name", "identifier"),
    [("netkey2", "netkey2-nks-80", "4331", SIGNATURE), ("idkey", "idkey-df08-81", "DF08/4331", "4B")],
)
def test_opensc_reads_those_of_other_cards(
    opensc: OpenSc, pcscd: PrivatePcscd, personality: str, key: str, name: str, identifier: str
) -> None:
    card, certificate = imported(personality, key, name, StorageForm.CONTAINER)
    if personality == "netkey2":
        file = ef(card, CARD_CERTIFICATE, 0xDF01)
        file.content[:] = b"\xff" * file.size
    pcscd.slot(card)
    assert read_by_opensc(opensc, identifier) == certificate


def test_opensc_finds_an_erased_or_interrupted_file_empty(opensc: OpenSc, pcscd: PrivatePcscd) -> None:
    card = netkey3()
    put(card, b"", CARD_CERTIFICATE)
    write(card)
    ef(card).content[0] = 0xFF  # as after the first command of an import or an erasure
    pcscd.slot(card)
    assert "df024331" not in opensc.good("pkcs15-tool", "--list-certificates").lower()


@pytest.mark.parametrize("form", StorageForm)
def test_gnupg_reads_both_forms(
    tool: Callable[[str], str], pcscd: PrivatePcscd, tmp_path: pathlib.Path, form: StorageForm
) -> None:
    tool("opensc-tool")  # tells when the card is there
    card, certificate = imported("netkey3", "nks-80", "4331", form)
    pcscd.slot(card)
    with gnupg(tool, pcscd, tmp_path) as scdaemon:
        scdaemon.need("SERIALNO")
        assert scdaemon.need("READCERT NKS-NKS3.4331").data == certificate.public_bytes(Encoding.DER)
        assert "100 NKS-NKS3.4331" in scdaemon.need("LEARN --force").values("CERTINFO")


def test_gnupg_finds_an_interrupted_file_empty(
    tool: Callable[[str], str], pcscd: PrivatePcscd, tmp_path: pathlib.Path
) -> None:
    tool("opensc-tool")
    card = netkey3()
    put(card, b"\xff" + DER[1:])
    pcscd.slot(card)
    with gnupg(tool, pcscd, tmp_path) as scdaemon:
        scdaemon.need("SERIALNO")
        assert "Not found" in str(scdaemon.command("READCERT NKS-NKS3.4331").error)


@contextlib.contextmanager
def gnupg(tool: Callable[[str], str], pcscd: PrivatePcscd, folder: pathlib.Path) -> Iterator[Scdaemon]:
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    with Scdaemon(tool("/usr/lib/gnupg/scdaemon"), home, pcscd.environment) as scdaemon:
        yield scdaemon


# --- what a request is to OpenSSL


@pytest.mark.parametrize("role", KeyRole)
@pytest.mark.parametrize("personality", ["netkey3", "netkey2", "idkey", "signature-card-v2"])
def test_openssl_accepts_the_request(
    tool: Callable[[str], str], tmp_path: pathlib.Path, personality: str, role: KeyRole
) -> None:
    reader = SimulatedReader(open_card(personality))
    session = CardSession(reader, reader.connect(deadline=time.monotonic() + 30), timeouts=Timeouts())
    key = bare_private_key(session, role, CallablePinSource(lambda: b"123456"), ledger=MemoryPinLedger())
    names = alternative_names(["gateway.example"], ["a@example.org"])
    request = request_certificate(key, parse_subject("CN=Poststelle,O=Beispiel GmbH,C=DE"), names)
    (tmp_path / "request.pem").write_bytes(request.public_bytes(Encoding.PEM))
    reader.close()
    judged = subprocess.run(
        [tool("openssl"), "req", "-verify", "-in", "request.pem", "-noout", "-text"],
        cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stderr
    assert "verify OK" in judged.stderr + judged.stdout
    assert "Subject: C = DE, O = Beispiel GmbH, CN = Poststelle" in judged.stdout
    assert "DNS:gateway.example, email:a@example.org" in judged.stdout
