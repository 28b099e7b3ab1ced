"""A simulated card, the card manager's certificates on it, and what lies in its files."""

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.card_manager.certificates import CardCertificates, WritePlan
from demail_hw.interfaces import PinLedger, Timeouts
from demail_hw.keys.card_session import CardSession
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile, TransparentFile
from demail_hw_simulators.card.personalities import load_card_key
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.sim_reader import SimulatedReader
from issued import issue

__all__ = ["DER", "IMPORTED", "NKS", "PIN", "carry_out", "ef", "erase", "managing", "public_key", "put", "write"]

PIN: Final = b"123456"
NKS: Final = 0xDF02


def public_key(name: str = "nks-80") -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    return load_card_key(name).public_key()


IMPORTED: Final = issue(public_key())
DER: Final = IMPORTED.public_bytes(Encoding.DER)


def ef(card: SimulatedTcosCard, identifier: int = 0x4331, directory: int = NKS) -> TransparentFile:
    application = card.file_system.root.child(directory)
    assert isinstance(application, DedicatedFile)
    file = application.child(identifier)
    assert isinstance(file, TransparentFile)
    return file


def put(card: SimulatedTcosCard, content: bytes, identifier: int = 0x4331) -> None:
    file = ef(card, identifier)
    file.content[:] = content.ljust(file.size, b"\xff")


@contextlib.contextmanager
def managing(card: SimulatedCard | SimulatedReader, ledger: PinLedger | None = None) -> Iterator[CardCertificates]:
    reader = card if isinstance(card, SimulatedReader) else SimulatedReader(card)
    connection = reader.connect(deadline=time.monotonic() + 30)
    with CardSession(reader, connection, timeouts=Timeouts()) as session:
        yield CardCertificates(session, ledger or MemoryPinLedger())
        connection.close()


def carry_out(certificates: CardCertificates, plan: WritePlan, pin: bytes = PIN) -> None:
    certificates.carry_out(plan, CallablePinSource(lambda: pin))


def write(
    card: SimulatedCard, certificate: x509.Certificate = IMPORTED, name: str = "4331", pin: bytes = PIN
) -> None:
    with managing(card) as certificates:
        carry_out(certificates, certificates.plan_import(certificate, certificates.file(name)), pin)


def erase(card: SimulatedCard, name: str = "4331", pin: bytes = PIN) -> None:
    with managing(card) as certificates:
        carry_out(certificates, certificates.plan_erase(certificates.file(name)), pin)
