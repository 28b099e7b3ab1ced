"""The provider on the cards that are no NetKey 3: what it opens, what it sends, what it refuses.

The cards here are small and strict: they take the one form of each command that the profile is meant to send.
"""

import logging
import time
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw import KeyRole, PinName, Timeouts
from demail_hw.errors import AlgorithmNotSupported, KeyNotFound, Outcome, SignatureInvalid
from demail_hw.identity import PrivateKey
from demail_hw.iso7816.apdu import CommandApdu
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.provider import TcosKeyProvider
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw_simulators.ca import telesec_ca
from demail_hw_simulators.card.raw_rsa import RawRsa
from demail_hw_simulators.sim_reader import SimulatedReader

PIN = b"123456"
PKCS1, SHA256 = padding.PKCS1v15(), hashes.SHA256()
PSS = padding.PSS(padding.MGF1(SHA256), padding.PSS.DIGEST_LENGTH)
SELECT, MSE, PSO = 0xA4, 0x22, 0x2A
Pins: TypeAlias = dict[tuple[str, int], bytes]
Opens: TypeAlias = dict[tuple[str, int], frozenset[str]]
NKS, SIGG = "d2760000030102", "d27600006601"
NORMAL, END_OF_FILE, NOT_FOUND = b"\x90\x00", b"\x62\x82", b"\x6a\x82"
RSA_1024 = [rsa.generate_private_key(65537, 1024) for _ in range(4)]
RSA_2048 = [rsa.generate_private_key(65537, 2048) for _ in range(3)]


class SmallCard:
    """As much of a card as the provider needs, strict about each command; ``log``: the INS of every command.

    ``files``: by DF and identifier; ``keys``, ``pins``: by DF and reference. The DF ``""`` is the MF.
    """

    atr = ""
    pins: ClassVar[Pins] = {("", 0x00): PIN}
    opens: ClassVar[Opens] = {}
    directories: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.log: list[int] = []
        self.files: dict[tuple[str, str], bytes] = {("", "2f02"): bytes.fromhex("5a0a89490173510012345678")}
        self.records: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self.keys: dict[tuple[str, int], PrivateKey] = {}
        self.spoil: Callable[[bytes], bytes] = lambda answer: answer
        self.power_off()

    def add(self, directory: str, reference: int, role: KeyRole, certificate: str, key: PrivateKey) -> None:
        issued = telesec_ca().issue_card_certificate(role, key.public_key())
        self.files[directory, certificate] = issued.public_bytes(Encoding.DER)
        self.keys[directory, reference] = key

    def power_on(self) -> bytes:
        return bytes.fromhex(self.atr)

    def power_off(self) -> None:
        self.directory, self.file = "", ""
        self.environment: int | None = None
        self.verified: set[tuple[str, int]] = set()

    def transmit(self, command: bytes) -> bytes:
        self.log.append(command[1])
        apdu = CommandApdu.decode(command)
        data = b"".join(apdu.data)
        answer = {SELECT: self.select, 0xB0: self.read, 0xB2: self.record, 0x20: self.verify}.get(apdu.ins)
        if answer is not None:
            return answer(apdu, data)
        return self.use_key(command, apdu, data)

    def select(self, apdu: CommandApdu, data: bytes) -> bytes:
        name = data.hex()
        if apdu.p1 == 0x02:
            known = {*self.files, *self.records}
            self.file = name if (self.directory, name) in known else ""
            return NORMAL if self.file else NOT_FOUND
        if name == "3f00":
            name = ""
        elif name not in self.directories:
            return NOT_FOUND
        self.directory, self.environment = name, None
        return NORMAL

    def read(self, apdu: CommandApdu, data: bytes) -> bytes:
        offset = apdu.p1 << 8 | apdu.p2
        part = self.files[self.directory, self.file][offset : offset + apdu.ne]
        return part + (NORMAL if len(part) == apdu.ne else END_OF_FILE)

    def record(self, apdu: CommandApdu, data: bytes) -> bytes:
        return self.records[self.directory, self.file][apdu.p1 - 1] + NORMAL

    def verify(self, apdu: CommandApdu, data: bytes) -> bytes:
        pin = next((where for where in ((self.directory, apdu.p2), ("", apdu.p2)) if where in self.pins), None)
        if pin is None:
            return bytes.fromhex("6a88")
        if not data:
            return bytes.fromhex("63c3")
        assert data == self.pins[pin]
        self.verified.add(pin)
        return NORMAL

    def use_key(self, command: bytes, apdu: CommandApdu, data: bytes) -> bytes:
        operation = self.operation(command, apdu, data)
        if operation is None:
            return NORMAL
        if not any(self.directory in self.opens[pin] for pin in self.verified):
            return bytes.fromhex("6982")
        return self.spoil(operation()) + NORMAL

    def operation(self, command: bytes, apdu: CommandApdu, data: bytes) -> Callable[[], bytes] | None:
        raise NotImplementedError

    def raw(self, reference: int, block: bytes) -> bytes:
        key = self.keys[self.directory, reference]
        assert isinstance(key, rsa.RSAPrivateKey)
        assert len(block) == key.key_size // 8
        return RawRsa(key).apply(block)


class SmallNetKey2(SmallCard):
    """TCOS 2: MSE with C1, DECIPHER short and with 02, and key 80 only as SELECT leaves it."""

    atr = "3BBA96008131865D0064056002033180900066"
    directories = frozenset({NKS, SIGG})
    pins: ClassVar[Pins] = {("", 0x00): PIN, (NKS, 0x81): b"111111", (NKS, 0x80): b"000000", (SIGG, 0x81): b"654321"}
    opens: ClassVar[Opens] = {pin: frozenset({NKS if pin[0] != SIGG else SIGG}) for pin in pins}

    def __init__(self) -> None:
        super().__init__()
        keys = iter(RSA_1024)
        for directory, reference, role, certificate, public in (
            (NKS, 0x80, KeyRole.SIGNATURE, "c000", "4531"),
            (NKS, 0x81, KeyRole.ENCRYPTION, "c200", "45b1"),
            (NKS, 0x82, KeyRole.AUTHENTICATION, "c100", "4571"),
            (SIGG, 0x80, KeyRole.SIGNATURE, "c000", "4531"),
        ):
            key = next(keys)
            self.add(directory, reference, role, certificate, key)
            numbers = key.public_key().public_numbers()
            self.records[directory, public] = (
                b"\x01\x80" + numbers.n.to_bytes(128, "big"),
                b"\x02\x03" + numbers.e.to_bytes(3, "big"),
            )

    def operation(self, command: bytes, apdu: CommandApdu, data: bytes) -> Callable[[], bytes] | None:
        if command.startswith(bytes.fromhex("0022c1b8038401")):
            self.environment = data[2]
            return None
        if command.startswith(bytes.fromhex("002a9e9a")):
            assert self.environment is None
            padded = b"\x00\x01" + b"\xff" * (125 - len(data)) + b"\x00" + data
            return lambda: self.raw(0x80, padded)
        assert command.startswith(bytes.fromhex("002a80868102"))
        assert command[-1] == 0x80
        reference = self.environment
        assert reference in {0x81, 0x82}
        return lambda: self.raw(reference, data[1:])


class SmallIdKey(SmallCard):
    """The ATR of a NetKey 3, no NKS, keys in two DFs without AID, and no algorithm in MSE."""

    atr = "3BBF96008131FE5D00640411030131C073F701D00090007D"
    directories = frozenset({"d2760000030c01", "df07", "df08"})
    opens: ClassVar[Opens] = {("", 0x00): frozenset({"df07", "df08"})}

    def __init__(self) -> None:
        super().__init__()
        for (directory, reference, role, certificate), key in zip(
            (
                ("df07", 0x84, KeyRole.SIGNATURE, "4331"),
                ("df07", 0x85, KeyRole.AUTHENTICATION, "4332"),
                ("df08", 0x81, KeyRole.ENCRYPTION, "4331"),
            ),
            RSA_2048,
            strict=True,
        ):
            self.add(directory, reference, role, certificate, key)

    def operation(self, command: bytes, apdu: CommandApdu, data: bytes) -> Callable[[], bytes] | None:
        if command.startswith(bytes.fromhex("002241b8038401")):
            self.environment = data[2]
            return None
        assert command.startswith(bytes.fromhex("002a808600010100"))
        assert command.endswith(b"\x01\x00")
        reference = self.environment
        assert reference is not None
        return lambda: self.raw(reference, data[1:])


class SmallSignatureCard(SmallCard):
    """ECDSA: a digest in, r and s out; the PIN is 03 of NKS."""

    atr = "3B9F968131FE9D006405A0030431C073F701D000900028"
    directories = frozenset({NKS, "a000000167455349474e"})
    pins: ClassVar[Pins] = {(NKS, 0x03): PIN}
    opens: ClassVar[Opens] = {(NKS, 0x03): frozenset({NKS})}

    def __init__(self) -> None:
        super().__init__()
        self.add(NKS, 0x80, KeyRole.SIGNATURE, "c000", ec.generate_private_key(ec.SECP256R1()))
        self.add(NKS, 0x81, KeyRole.ENCRYPTION, "c200", ec.generate_private_key(ec.BrainpoolP256R1()))
        self.add(NKS, 0x82, KeyRole.AUTHENTICATION, "c500", ec.generate_private_key(ec.SECP256R1()))

    def operation(self, command: bytes, apdu: CommandApdu, data: bytes) -> Callable[[], bytes] | None:
        if command.startswith(bytes.fromhex("002241b6038401")):
            self.environment = data[2]
            return None
        assert command.startswith(bytes.fromhex("002a9e9a20"))
        key = self.keys[self.directory, self.environment or 0]
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        made = utils.decode_dss_signature(key.sign(data, ec.ECDSA(utils.Prehashed(SHA256))))
        return lambda: b"".join(part.to_bytes(32, "big") for part in made)


CARDS: dict[str, type[SmallCard]] = {
    "netkey2": SmallNetKey2,
    "idkey": SmallIdKey,
    "signature-card-v2": SmallSignatureCard,
}


def open_card(name: str) -> SmallCard:
    return CARDS[name]()


def provider_of(card: SmallCard, pin: bytes = PIN, which: PinName = PinName.GLOBAL) -> TcosKeyProvider:
    reader = SimulatedReader(card)
    session = CardSession(reader, reader.connect(deadline=time.monotonic() + 30), timeouts=Timeouts())
    return TcosKeyProvider(session, CallablePinSource(lambda: pin), ledger=MemoryPinLedger(), which=which)


def sign(provider: TcosKeyProvider, role: KeyRole) -> None:
    key = provider.identity(role).private_key
    if isinstance(key, rsa.RSAPrivateKey):
        key.public_key().verify(key.sign(b"message", PKCS1, SHA256), b"message", PKCS1, SHA256)
    else:
        key.public_key().verify(key.sign(b"message", ec.ECDSA(SHA256)), b"message", ec.ECDSA(SHA256))


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("role", KeyRole)
def test_steady_state_is_one_command(name: str, role: KeyRole) -> None:
    card = open_card(name)
    provider = provider_of(card)
    sign(provider, role)
    card.log.clear()
    for _ in range(3):
        sign(provider, role)
    assert card.log == [PSO] * 3


@pytest.mark.parametrize("name", CARDS)
def test_keys_in_turn(name: str) -> None:
    provider = provider_of(open_card(name))
    for role in (*KeyRole, *KeyRole):
        sign(provider, role)


@pytest.mark.parametrize("name", ["netkey2", "idkey"])
@pytest.mark.parametrize(
    "scheme", [PKCS1, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)], ids=["pkcs1", "oaep"]
)
def test_decryption(name: str, scheme: padding.AsymmetricPadding) -> None:
    key = provider_of(open_card(name)).identity(KeyRole.ENCRYPTION).private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.decrypt(key.public_key().encrypt(b"message", scheme), scheme) == b"message"


# --- NetKey of TCOS 2


def test_rsa_1024_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        provider = provider_of(open_card("netkey2"))
    (record,) = caplog.records
    assert "too weak" in record.getMessage()
    for identity in provider.identities():
        assert identity.private_key.key_size == 1024
        assert "RSA-1024" in identity.label
        assert identity.label in record.getMessage()


def test_tcos_2_signs_pss_where_the_hash_fits() -> None:
    key = provider_of(open_card("netkey2")).identity(KeyRole.AUTHENTICATION).private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    key.public_key().verify(key.sign(b"message", PSS, SHA256), b"message", PSS, SHA256)
    too_long = padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.DIGEST_LENGTH)
    with pytest.raises(ValueError, match="does not fit"):
        key.sign(b"message", too_long, hashes.SHA512())


@pytest.mark.parametrize(
    ("which", "pin"), [(PinName.NKS_1, b"111111"), (PinName.NKS_2, b"000000"), (PinName.SIGG_1, b"654321")]
)
def test_the_local_pins_of_tcos_2(which: PinName, pin: bytes) -> None:
    provider = provider_of(open_card("netkey2"), pin, which)
    for identity in provider.identities():
        sign(provider, identity.role)
    assert provider.identities()


# --- IDKey


def test_keys_in_two_directories_cost_a_select_each_time() -> None:
    card = open_card("idkey")
    provider = provider_of(card)
    sign(provider, KeyRole.SIGNATURE)
    card.log.clear()
    sign(provider, KeyRole.ENCRYPTION)
    sign(provider, KeyRole.SIGNATURE)
    assert card.log == [SELECT, MSE, PSO, SELECT, MSE, PSO]


def test_a_pin_that_the_card_does_not_have() -> None:
    with pytest.raises(KeyNotFound, match="This TCOS 3 IDKey card has no PIN sigg-1") as caught:
        provider_of(open_card("idkey"), which=PinName.SIGG_1)
    assert "global" in caught.value.remedy


@pytest.mark.parametrize("name", ["idkey", "signature-card-v2"])
def test_the_certificate_of_another_key_is_named_as_a_cause(name: str) -> None:
    """These cards have no EF.PK: nothing but a signature shows it."""
    card = open_card(name)
    first, second, *_ = (where for where in card.files if where[0] in {"df07", NKS})
    card.files[first] = card.files[second]
    with pytest.raises(SignatureInvalid) as caught:
        sign(provider_of(card), KeyRole.SIGNATURE)
    assert "certificate" in caught.value.remedy


# --- Signature Card V2


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda a: a.name)
@pytest.mark.parametrize("role", KeyRole)
def test_ecdsa(role: KeyRole, algorithm: hashes.HashAlgorithm) -> None:
    key = provider_of(open_card("signature-card-v2")).identity(role).private_key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    key.public_key().verify(key.sign(b"message", ec.ECDSA(algorithm)), b"message", ec.ECDSA(algorithm))


def test_a_wrong_ecdsa_signature_never_leaves() -> None:
    card = open_card("signature-card-v2")
    provider = provider_of(card)
    sign(provider, KeyRole.SIGNATURE)
    card.spoil = lambda answer: bytes((answer[0] ^ 1,)) + answer[1:]
    with pytest.raises(SignatureInvalid) as caught:
        sign(provider, KeyRole.SIGNATURE)
    assert caught.value.outcome is Outcome.UNKNOWN


def test_no_key_agreement() -> None:
    card = open_card("signature-card-v2")
    key = provider_of(card).identity(KeyRole.ENCRYPTION).private_key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    card.log.clear()
    with pytest.raises(AlgorithmNotSupported):
        key.exchange(ec.ECDH(), key.public_key())
    assert card.log == []
