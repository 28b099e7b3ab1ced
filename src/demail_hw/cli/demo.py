"""``demail-hw demo``: the whole story over TCP, with the simulators in processes of their own."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Final

import click
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options

from demail_hw import cms, gateway
from demail_hw.address import Address
from demail_hw.cli.card_access import open_tracer
from demail_hw.cli.output import Report, json_option
from demail_hw.cli.probe import probe_facts
from demail_hw.cli.simulator_process import ended_by_signals, running_simulator
from demail_hw.errors import DecryptionFailed, SignatureInvalid
from demail_hw.foreign_text import printable
from demail_hw.identity import Identity, KeyRole
from demail_hw.interfaces import KeyProvider
from demail_hw.keys.provider import open_provider
from demail_hw.pin_ledger import FilePinLedger

__all__ = ["demo_command"]

_TEST_PIN: Final = b"123456"  # of the simulated card, as its documentation prints it
_OPENSSL_SECONDS: Final = 30.0
_SIGNATURES: Final = 100
_LETTER: Final = "Sehr geehrte Damen und Herren,\nanbei die Prüfberichte für Köln und Düsseldorf.\n"


@click.command("demo")
@json_option
def demo_command(report: Report) -> None:
    """Sign, decrypt and open the De-Mail gateway with a simulated card behind a simulated USB server: key, TCOS
    APDU, CCID, USB/IP, TCP, and all the way back."""
    say: Callable[[str], object] = _silent if report.as_json else click.echo
    with (
        ended_by_signals(),
        tempfile.TemporaryDirectory(prefix="demail-hw-demo-") as folder,
        contextlib.ExitStack() as simulators,
    ):
        usb_server = simulators.enter_context(running_simulator("usb-server", "--listen", "127.0.0.1:0"))
        de_mail = simulators.enter_context(running_simulator("gateway", "--listen", "127.0.0.1:0"))
        say(f"USB server   {usb_server}  with a uTrust 2700 F and a TCOS 3 NetKey card (simulated)")
        say(f"Gateway      {de_mail}  client certificate required (simulated)")
        result = _story(Path(folder), usb_server, de_mail, say)
    report.show(probe_facts(result), f"De-Mail domains: {len(result.domains)}")


def _silent(line: str) -> None:
    """Says nothing."""


def _story(folder: Path, usb_server: str, de_mail: str, say: Callable[[str], object]) -> gateway.ProbeResult:
    from demail_hw_simulators.ca import write_trust

    write_trust(folder)
    ledger, tracer = FilePinLedger(folder / "state"), open_tracer(Address.parse(usb_server))
    with open_provider(usb_server, f"file:{_pin_file(folder)}", ledger=ledger, tracer=tracer) as provider:
        for identity in provider.identities():
            say(f"Identity     {identity.role.value}: {printable(identity.certificate.subject.rfc4514_string())}")
        say(f"Signed       {_sign(provider.identity(KeyRole.SIGNATURE), folder)}")
        say(f"Decrypted    {_decrypt(provider.identity(KeyRole.ENCRYPTION))}")
        say(f"Speed        {_speed(provider)}")
        result = gateway.probe(provider.identity(KeyRole.AUTHENTICATION), de_mail, cafile=folder / "gateway-ca.pem")
    say(f"Handshake    {result.tls_version}, {result.cipher}, with the card's authentication key")
    for domain in result.domains:
        say(f"Domain       {printable(domain)}")
    return result


def _pin_file(folder: Path) -> Path:
    path = folder / "pin"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(_TEST_PIN)
    return path


def _sign(identity: Identity, folder: Path) -> str:
    letter = EmailMessage(policy=SMTP)
    letter["From"], letter["To"], letter["Subject"] = "a@beispiel.example", "b@beispiel.example", "Prüfberichte"
    letter.set_content(_LETTER)
    letter.add_attachment(bytes(range(256)) * 64, maintype="application", subtype="octet-stream", filename="köln.bin")
    signed = cms.sign(letter.as_bytes(), identity)
    path = folder / "signed.eml"
    path.write_bytes(signed)
    return f"{len(signed)} bytes of S/MIME; {_judged_by_openssl(path, folder / 'telesec-root.pem')}"


def _judged_by_openssl(message: Path, root: Path) -> str:
    openssl = shutil.which("openssl")
    if openssl is None:
        return "openssl is not installed, so only we have verified it"
    command = [openssl, "cms", "-verify", "-in", str(message), "-CAfile", str(root), "-out", os.devnull]
    verdict = subprocess.run(command, capture_output=True, timeout=_OPENSSL_SECONDS, check=False)  # noqa: S603  fixed
    if verdict.returncode:
        raise SignatureInvalid("openssl rejects the signed message.")
    return "openssl cms -verify accepts it"


def _decrypt(identity: Identity) -> str:
    envelope = (
        PKCS7EnvelopeBuilder()
        .set_data(_LETTER.encode())
        .add_recipient(identity.certificate)
        .encrypt(Encoding.SMIME, [PKCS7Options.Binary])
    )
    if cms.decrypt(envelope, identity) != _LETTER.encode():
        raise DecryptionFailed("The card decrypted another text than was encrypted.")
    return f"{len(_LETTER)} characters, the same as were encrypted"


def _speed(provider: KeyProvider) -> str:
    identity = provider.identity(KeyRole.SIGNATURE)
    began = time.perf_counter()
    for number in range(_SIGNATURES):
        cms.sign(number.to_bytes(4, "big"), identity, form=cms.SignedForm.DER)
    per_second = _SIGNATURES / (time.perf_counter() - began)
    return f"{per_second:.0f} CMS signatures a second, each verified before it is returned"
