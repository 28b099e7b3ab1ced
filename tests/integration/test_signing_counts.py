"""What a signature and a decryption cost on the wire, exactly: through USB/IP over TCP, in steady state.

Counted on both sides of the wire, and they have to agree.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from demail_hw.address import Address
from demail_hw.ccid.reader import CcidReader
from demail_hw.identity import KeyRole
from demail_hw.interfaces import Deadline, Timeouts
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.provider import TcosKeyProvider
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw.polling import pause
from demail_hw.transaction_lock import TransactionLock
from demail_hw_drivers.usbip_client import UsbIpTransport, connect
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.ccid_device import SimulatedUsbReader

OPERATIONS = 5
SECONDS = 30.0
TEST_PIN = b"123456"
MANAGE_SECURITY_ENVIRONMENT = 0x22
PERFORM_SECURITY_OPERATION = 0x2A

DIGEST_INFO_APDU = 5 + 51 + 1  # header and Lc, DigestInfo of SHA-256, Le
BLOCK_APDU = 7 + 1 + 256 + 2  # header and Lc, padding indicator and block, Le
ANSWER = 256 + 2  # RSA-2048, status word
CCID_HEADER = 10
USB_IP_HEADERS = 2 * 48  # bulk OUT and bulk IN, both ways


class Cost(NamedTuple):
    """Of one operation. The server's counts are named so; the others are the client's or the card's."""

    apdus: int
    messages_out: int
    messages_in: int
    urbs: int
    server_urbs: int
    round_trips: int
    sends: int
    server_sends: int
    bytes_out: int
    bytes_in: int
    server_bytes_in: int
    server_bytes_out: int

    @classmethod
    def of_one_command(cls, apdu: int) -> "Cost":
        """A card command of so many bytes: one of everything, and the headers."""
        out, back = (size + CCID_HEADER + USB_IP_HEADERS for size in (apdu, ANSWER))
        return cls(1, 1, 1, 2, 2, 1, 1, 1, out, back, out, back)


class Bench:
    """A card behind a reader behind a server, its keys, and every counter in between."""

    def __init__(
        self,
        card: SimulatedTcosCard,
        reader: SimulatedUsbReader,
        server: UsbIpServer,
        transport: UsbIpTransport,
        provider: TcosKeyProvider,
    ) -> None:
        self._card = card
        self._reader = reader
        self._server = server
        self._transport = transport
        self._provider = provider

    def key(self, role: KeyRole) -> rsa.RSAPrivateKey:
        key = self._provider.identity(role).private_key
        assert isinstance(key, rsa.RSAPrivateKey)
        return key

    def cost(self, operation: Callable[[], object]) -> Cost:
        """Of each of several operations, the first of which was not counted."""
        operation()
        before = self._counts()
        for _ in range(OPERATIONS):
            operation()
        total = [now - then for now, then in zip(self._counts(), before, strict=True)]
        assert all(count % OPERATIONS == 0 for count in total)
        return Cost(*(count // OPERATIONS for count in total))

    def _counts(self) -> Cost:
        urbs, round_trips, sends, out, back = self._transport.counters
        server = self._server.counters
        received, sent = self._reader.messages
        return Cost(
            sum(self._card.instructions.values()),
            received,
            sent,
            urbs,
            server.urbs,
            round_trips,
            sends,
            server.sends,
            out,
            back,
            server.bytes_in,
            server.bytes_out,
        )

    @property
    def instructions(self) -> list[int]:
        return list(self._card.log)


def deadline() -> Deadline:
    return time.monotonic() + SECONDS


@pytest.fixture
def bench() -> Iterator[Bench]:
    card = netkey3()
    device = SimulatedUsbReader(card)
    with UsbIpServer([device], port=0) as server:
        transport = connect(Address.parse(f"usbip://127.0.0.1:{server.port}/"), deadline=deadline())
        reader = CcidReader(transport, lock=TransactionLock(), grace=deadline, pause=pause)
        session = CardSession(reader, reader.connect(deadline=deadline()), timeouts=Timeouts())
        try:
            provider = TcosKeyProvider(session, CallablePinSource(lambda: TEST_PIN), ledger=MemoryPinLedger())
            yield Bench(card, device, server, transport, provider)
        finally:
            session.connection.close()
            reader.close()


def signing(key: rsa.RSAPrivateKey) -> Callable[[], bytes]:
    return lambda: key.sign(b"data", padding.PKCS1v15(), hashes.SHA256())


def test_signature_of_a_key_that_pads_itself(bench: Bench) -> None:
    cost = bench.cost(signing(bench.key(KeyRole.SIGNATURE)))
    assert cost == Cost.of_one_command(DIGEST_INFO_APDU)
    assert cost.bytes_out + cost.bytes_in == 527 <= 560


@pytest.mark.parametrize("role", [KeyRole.AUTHENTICATION, KeyRole.ENCRYPTION])
def test_signature_of_a_raw_key(bench: Bench, role: KeyRole) -> None:
    cost = bench.cost(signing(bench.key(role)))
    assert cost == Cost.of_one_command(BLOCK_APDU)
    assert cost.bytes_out + cost.bytes_in == 736 <= 760


def test_pss_costs_no_more(bench: Bench) -> None:
    key, algorithm = bench.key(KeyRole.AUTHENTICATION), hashes.SHA256()
    pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
    assert bench.cost(lambda: key.sign(b"data", pss, algorithm)) == Cost.of_one_command(BLOCK_APDU)


@pytest.mark.parametrize(
    "scheme",
    [padding.PKCS1v15(), padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)],
    ids=["pkcs1", "oaep"],
)
def test_decryption(bench: Bench, scheme: padding.AsymmetricPadding) -> None:
    key = bench.key(KeyRole.ENCRYPTION)
    ciphertext = key.public_key().encrypt(b"secret", scheme)
    assert bench.cost(lambda: key.decrypt(ciphertext, scheme)) == Cost.of_one_command(BLOCK_APDU)


def test_another_key_costs_one_command_more_and_only_once(bench: Bench) -> None:
    first, second = (signing(bench.key(role)) for role in (KeyRole.SIGNATURE, KeyRole.AUTHENTICATION))
    first()
    second()
    before = len(bench.instructions)
    first()
    first()
    signatures = [PERFORM_SECURITY_OPERATION] * 2
    assert bench.instructions[before:] == [MANAGE_SECURITY_ENVIRONMENT, *signatures]
