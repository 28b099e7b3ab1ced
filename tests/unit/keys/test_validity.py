"""A key whose certificate is not valid now: it is used, and it says so."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from certificate_bench import PIN, public_key, put
from demail_hw import cms, tls
from demail_hw.identity import Identity, KeyRole
from demail_hw.interfaces import Timeouts
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.provider import TcosKeyProvider
from demail_hw.keys.validity import doubt
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.sim_reader import SimulatedReader
from issued import issue

PLACES = {
    KeyRole.SIGNATURE: (0x4331, "nks-80"),
    KeyRole.ENCRYPTION: (0x43B1, "nks-81"),
    KeyRole.AUTHENTICATION: (0x4371, "nks-82"),
}


@contextlib.contextmanager
def provider_certified_for(role: KeyRole, first_day: int, last_day: int) -> Iterator[TcosKeyProvider]:
    card = netkey3()
    identifier, name = PLACES[role]
    certificate = issue(public_key(name), first_day=first_day, last_day=last_day)
    put(card, certificate.public_bytes(Encoding.DER), identifier)
    reader = SimulatedReader(card)
    session = CardSession(reader, reader.connect(deadline=time.monotonic() + 30), timeouts=Timeouts())
    with TcosKeyProvider(session, CallablePinSource(lambda: PIN), ledger=MemoryPinLedger()) as provider:
        yield provider


@contextlib.contextmanager
def key_certified_for(role: KeyRole, first_day: int, last_day: int) -> Iterator[RSAPrivateKey]:
    with provider_certified_for(role, first_day, last_day) as provider:
        key = provider.identity(role).private_key
        assert isinstance(key, RSAPrivateKey)
        yield key


def sign(key: RSAPrivateKey) -> None:
    key.public_key().verify(key.sign(b"data", PKCS1v15(), SHA256()), b"data", PKCS1v15(), SHA256())


@pytest.mark.parametrize("role", [KeyRole.SIGNATURE, KeyRole.ENCRYPTION, KeyRole.AUTHENTICATION])
@pytest.mark.parametrize(("days", "told"), [((-2, -1), "expired at"), ((1, 2), "is not valid before")])
def test_f73_the_first_signature_warns(
    role: KeyRole, days: tuple[int, int], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with key_certified_for(role, *days) as key:
        assert "certificate of the" not in caplog.text  # it may never sign
        sign(key)
        assert f"The certificate of the NetKey {role.value} key {told} 20" in caplog.text
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        sign(key)
        assert len(caplog.records) == 1


def test_a_valid_certificate_is_no_word_worth(caplog: pytest.LogCaptureFixture) -> None:
    with key_certified_for(KeyRole.SIGNATURE, -1, 1) as key:
        sign(key)
    assert caplog.records == []


def test_old_messages_are_decrypted_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with key_certified_for(KeyRole.ENCRYPTION, -2, -1) as key:
        public = key.public_key()
        assert isinstance(public, RSAPublicKey)
        assert key.decrypt(public.encrypt(b"secret", PKCS1v15()), PKCS1v15()) == b"secret"
    assert caplog.records == []


def software_identity(first_day: int, last_day: int) -> Identity:
    key = rsa.generate_private_key(65537, 2048)
    certificate = issue(key.public_key(), first_day=first_day, last_day=last_day)
    return Identity(KeyRole.SIGNATURE, "key in a file", key, certificate)


@pytest.mark.parametrize(("days", "told"), [((-2, -1), "expired at"), ((1, 2), "is not valid before")])
@pytest.mark.parametrize(
    "use",
    [lambda identity: cms.sign(b"a message", identity), tls.client_context],
    ids=["a message", "TLS"],
)
def test_a_key_in_a_file_warns_once_too(
    use: Callable[[Identity], object], days: tuple[int, int], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    identity = software_identity(*days)
    for _ in range(2):
        use(identity)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"The certificate of the key in a file {told} 20" in caplog.text
    caplog.clear()
    use(software_identity(-1, 1))
    assert caplog.records == []


def test_a_message_that_a_card_signs_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    with provider_certified_for(KeyRole.SIGNATURE, -2, -1) as provider:
        for _ in range(2):
            cms.sign(b"a message", provider.identity(KeyRole.SIGNATURE))
    assert len(caplog.records) == 1


def test_doubts() -> None:
    assert doubt(issue(public_key())) == ""
    assert doubt(issue(public_key(), first_day=-2, last_day=-1)).startswith("The certificate expired at ")
    assert doubt(issue(public_key(), first_day=1, last_day=2)).startswith("The certificate is not valid before ")
