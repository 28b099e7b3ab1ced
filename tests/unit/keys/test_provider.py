"""The provider of a TCOS card: what it opens, what it sends in steady state, and what it does with bad cards."""

import dataclasses
import io
import time
import traceback
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder

import demail_hw
from demail_hw import Identity, KeyRole, PinName, Timeouts, cms
from demail_hw.errors import (
    AlgorithmNotSupported,
    CardError,
    CertificateError,
    ConfigurationError,
    KeyNotFound,
    Outcome,
    PinIncorrect,
    ProtocolViolation,
    SecurityStatus,
    SignatureInvalid,
    UnexpectedCard,
    UnknownCard,
)
from demail_hw.interfaces import CardLimits
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.provider import TcosKeyProvider, open_provider
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw_simulators.ca import telesec_ca
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.interfaces import SimulatedCard
from demail_hw_simulators.sim_reader import SimulatedReader
from issued import issue

PKCS1, SHA256 = padding.PKCS1v15(), hashes.SHA256()
PSS = padding.PSS(padding.MGF1(SHA256), padding.PSS.DIGEST_LENGTH)
SELECT_FIRST, READ_BINARY = 0xA4, 0xB0


class Counted:
    """A card that notes the INS of every command, and lets a test change its answers."""

    def __init__(self, card: SimulatedCard) -> None:
        self.card = card
        self.log: list[int] = []
        self.selected = b""

    def power_on(self) -> bytes:
        return self.card.power_on()

    def power_off(self) -> None:
        self.card.power_off()

    def transmit(self, command: bytes) -> bytes:
        self.log.append(command[1])
        if command[1] == SELECT_FIRST:
            self.selected = command[5:]
        return self.change(command, self.card.transmit(command))

    def change(self, command: bytes, answer: bytes) -> bytes:
        return answer


def session_of(card: SimulatedCard) -> CardSession:
    reader = SimulatedReader(card)
    return CardSession(reader, reader.connect(deadline=time.monotonic() + 30), timeouts=Timeouts())


def provider_of(card: SimulatedCard, pin: bytes = b"123456", which: PinName = PinName.GLOBAL) -> TcosKeyProvider:
    return TcosKeyProvider(session_of(card), CallablePinSource(lambda: pin), ledger=MemoryPinLedger(), which=which)


def sign(identity: Identity, scheme: padding.AsymmetricPadding = PKCS1) -> bytes:
    assert isinstance(identity.private_key, rsa.RSAPrivateKey)
    return identity.private_key.sign(b"message", scheme, SHA256)


@pytest.fixture
def card() -> Counted:
    return Counted(open_card("netkey3"))


def test_opening_asks_for_no_pin(card: Counted) -> None:
    def never() -> bytes:
        raise AssertionError("the PIN was asked for")

    assert (
        len(TcosKeyProvider(session_of(card), CallablePinSource(never), ledger=MemoryPinLedger()).identities()) == 3
    )
    assert 0x20 not in card.log


@pytest.mark.parametrize("role", KeyRole)
def test_steady_state_is_one_command(card: Counted, role: KeyRole) -> None:
    identity = provider_of(card).identity(role)
    sign(identity)
    card.log.clear()
    for _ in range(5):
        sign(identity)
    assert card.log == [0x2A] * 5


def test_changing_the_key_costs_one_command_more(card: Counted) -> None:
    provider = provider_of(card)
    first, second = provider.identity(KeyRole.SIGNATURE), provider.identity(KeyRole.AUTHENTICATION)
    sign(first)
    sign(second, PSS)
    card.log.clear()
    sign(first)
    sign(second, PSS)
    assert card.log == [0x22, 0x2A, 0x22, 0x2A]


def test_after_a_reset_everything_is_set_up_again(card: Counted) -> None:
    provider = provider_of(card)
    identity = provider.identity(KeyRole.SIGNATURE)
    sign(identity)
    session = provider.session
    with session.transaction() as deadline:
        session.connection.reset(deadline=deadline)
    card.log.clear()
    sign(identity)
    assert card.log[-1] == 0x2A
    assert card.log.count(0x20) == 3  # status before and after the PIN was asked for, then one VERIFY
    card.log.clear()
    sign(identity)
    assert card.log == [0x2A]


@pytest.mark.parametrize(("which", "pin"), [(PinName.SIGG_1, b"654321"), (PinName.SIGG_2, b"87654321")])
def test_the_sigg_pins_open_the_sigg_key_alone(card: Counted, which: PinName, pin: bytes) -> None:
    provider = provider_of(card, pin, which)
    (identity,) = provider.identities()
    assert identity.label == "SigG signature key"
    sign(identity)
    with pytest.raises(KeyNotFound, match="sigg"):
        provider.identity(KeyRole.ENCRYPTION)


def test_the_sigg_key_signs_again_and_again_each_time_with_its_pin(card: Counted) -> None:
    identity = provider_of(card, b"654321", PinName.SIGG_1).identity(KeyRole.SIGNATURE)
    sign(identity)
    card.log.clear()
    for _ in range(3):
        sign(identity)
    # The counter before and after the PIN is asked for, VERIFY, the signature.
    assert card.log == [0x20, 0x20, 0x20, 0x2A] * 3


def test_a_sigg_key_that_does_not_use_up_its_pin_costs_one_question(card: Counted) -> None:
    key = card.card.file_system.root.files[0xDF01].keys[0x84]
    key.rule = dataclasses.replace(key.rule, once=False)
    identity = provider_of(card, b"654321", PinName.SIGG_1).identity(KeyRole.SIGNATURE)
    sign(identity)
    card.log.clear()
    for _ in range(3):
        sign(identity)
    assert card.log == [0x20, 0x2A] * 3


def test_a_netkey_3_as_it_comes(card: Counted) -> None:
    provider = provider_of(card)
    for identity in provider.identities():
        assert identity.chain == (telesec_ca().intermediate, telesec_ca().root)
    with pytest.raises(AlgorithmNotSupported):
        sign(provider.identity(KeyRole.SIGNATURE), PSS)
    sign(provider.identity(KeyRole.AUTHENTICATION), PSS)


def test_a_wrong_pin_spends_one_try(card: Counted) -> None:
    identity = provider_of(card, b"975310").identity(KeyRole.SIGNATURE)
    with pytest.raises(PinIncorrect) as caught:
        sign(identity)
    assert caught.value.retries_left == 2
    assert "975310" not in str(caught.value)


class Refusing(Counted):
    """Says 6982 to the first signature, as a card that lost its state without telling."""

    done = False

    def change(self, command: bytes, answer: bytes) -> bytes:
        if command[1] == 0x2A and not self.done:
            self.done = True
            return bytes.fromhex("6982")
        return answer


class OneWrong(Counted):
    """Its next answer to PSO is changed by ``spoil``, once."""

    spoil: Callable[[bytes], bytes] | None = None

    def change(self, command: bytes, answer: bytes) -> bytes:
        if command[1] != 0x2A or self.spoil is None:
            return answer
        spoil, self.spoil = self.spoil, None
        return spoil(answer)


def interrupted(answer: bytes) -> bytes:
    raise KeyboardInterrupt


def decrypt(identity: Identity) -> bytes:
    key = identity.private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.decrypt(key.public_key().encrypt(b"message", PKCS1), PKCS1)


LOOK_AGAIN = [0xA4, 0xA4, 0xB0]  # MF, EF.GDO, the serial number
SET_UP = [0x20, 0xA4, 0x22]  # whether the PIN is open still, NKS, security environment


@pytest.mark.parametrize(
    ("role", "use", "spoil", "error"),
    [
        (KeyRole.SIGNATURE, sign, lambda answer: b"\0" + answer[1:], SignatureInvalid),
        (KeyRole.AUTHENTICATION, sign, lambda answer: answer[:-3] + answer[-2:], SignatureInvalid),
        (KeyRole.ENCRYPTION, decrypt, lambda answer: answer[:-3] + answer[-2:], ProtocolViolation),
        (KeyRole.ENCRYPTION, decrypt, lambda answer: b"\x6f\x00", CardError),
        (KeyRole.SIGNATURE, sign, interrupted, KeyboardInterrupt),
    ],
    ids=["wrong signature", "short signature", "short block", "refusal", "interrupt"],
)
def test_after_a_wrong_answer_the_card_is_looked_at_again(
    role: KeyRole, use: Callable[[Identity], bytes], spoil: Callable[[bytes], bytes], error: type[BaseException]
) -> None:
    card = OneWrong(open_card("netkey3"))
    identity = provider_of(card).identity(role)
    use(identity)
    card.spoil = spoil
    with pytest.raises(error):
        use(identity)
    card.log.clear()
    use(identity)
    assert card.log == [*LOOK_AGAIN, *SET_UP, 0x2A]
    card.log.clear()
    use(identity)
    assert card.log == [0x2A]


# --- what a card keeps of its state, nobody knows: the driver is right about either

LOCAL_PINS = [
    ("netkey3", b"111111", PinName.NKS_1),
    ("netkey3", b"222222", PinName.NKS_2),
    ("netkey3", b"654321", PinName.SIGG_1),
    ("netkey2", b"222222", PinName.NKS_1),
    ("netkey2", b"654321", PinName.SIGG_1),
]
GLOBAL_PINS = [(personality, b"123456", PinName.GLOBAL) for personality in ("netkey2", "idkey", "signature-card-v2")]
either_way = pytest.mark.parametrize("keeps", [True, False], ids=["kept", "lost"])


def use(identity: Identity) -> None:
    """As the key can be used: for a signature, which the key verifies itself, and for a decryption."""
    key = identity.private_key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        key.sign(b"message", ec.ECDSA(SHA256))
        return
    sign(identity)
    if identity.role is KeyRole.ENCRYPTION:
        assert decrypt(identity) == b"message"


@either_way
@pytest.mark.parametrize(
    ("personality", "pin", "which"), LOCAL_PINS, ids=lambda value: getattr(value, "value", value)
)
def test_a_local_pin_is_given_again_only_where_the_card_forgot_it(
    personality: str, pin: bytes, which: PinName, keeps: bool
) -> None:
    card = Counted(open_card(personality, keeps_local_pins=keeps))
    provider = provider_of(card, pin, which)
    identity = provider.identity(KeyRole.SIGNATURE)
    use(identity)
    with provider.session.transaction() as deadline:
        provider.session.card.serial_number(deadline=deadline)  # selects the MF
    card.log.clear()
    use(identity)
    uses_up = (personality, which) == ("netkey3", PinName.SIGG_1)
    asked = 1 if keeps and not uses_up else 3  # the counter; else the counter before and after, and VERIFY
    assert card.log.count(0x20) == asked
    assert card.log.count(0x2A) == 1


@either_way
@pytest.mark.parametrize(
    ("personality", "pin", "which"), [*LOCAL_PINS, *GLOBAL_PINS], ids=lambda value: getattr(value, "value", value)
)
def test_every_key_in_turn_whatever_selecting_its_application_again_does(
    personality: str, pin: bytes, which: PinName, keeps: bool
) -> None:
    card = Counted(open_card(personality, keeps_local_pins=keeps, keeps_environment=keeps))
    identities = provider_of(card, pin, which).identities()
    for identity in (*identities, *reversed(identities)):
        use(identity)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader without extended APDUs."""
    limits = CardLimits(extended=False, max_command=261, max_response=258)
    monkeypatch.setattr("demail_hw_simulators.sim_reader.EXTENDED_LIMITS", limits)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("role", "use"),
    [(KeyRole.AUTHENTICATION, sign), (KeyRole.ENCRYPTION, sign), (KeyRole.ENCRYPTION, decrypt)],
    ids=["authentication", "encryption", "decryption"],
)
def test_what_needs_extended_apdus_is_refused_before_anything_is_sent(
    card: Counted, role: KeyRole, use: Callable[[Identity], bytes]
) -> None:
    identity = provider_of(card).identity(role)
    card.log.clear()
    with pytest.raises(AlgorithmNotSupported, match="256 bytes") as caught:
        use(identity)
    assert card.log == []
    assert caught.value.outcome is Outcome.NOT_SENT
    assert "extended" in caught.value.remedy


@pytest.mark.usefixtures("short")
def test_what_fits_into_short_apdus_goes_through(card: Counted) -> None:
    sign(provider_of(card).identity(KeyRole.SIGNATURE))
    weaker = provider_of(Counted(open_card("netkey2")))
    decrypt(weaker.identity(KeyRole.ENCRYPTION))
    sign(weaker.identity(KeyRole.AUTHENTICATION))


def test_a_refused_signature_is_an_error_once_and_the_next_sets_up_anew() -> None:
    identity = provider_of(Refusing(open_card("netkey3"))).identity(KeyRole.SIGNATURE)
    with pytest.raises(SecurityStatus):
        sign(identity)
    sign(identity)


class WithFile(Counted):
    """Answers READ BINARY of one EF with content of the test's choosing."""

    def __init__(self, file_id: int, content: bytes) -> None:
        super().__init__(open_card("netkey3"))
        self._file_id = file_id.to_bytes(2, "big")
        self._content = content

    def change(self, command: bytes, answer: bytes) -> bytes:
        if command[1] != READ_BINARY or self.selected != self._file_id:
            return answer
        offset = int.from_bytes(command[2:4], "big")
        part = self._content[offset : offset + (command[4] or 256)]
        return part + (b"\x90\x00" if part else b"\x6b\x00")


@pytest.mark.parametrize(
    "content",
    [
        b"\x30\x82\x10\x00garbage",
        b"\x30\x80" + bytes(100),
        b"\x30\x82\x00\x04abcd" + b"\xff" * 100,
        b"MIIB",
        b"\x30\x82\x00\x0a\x06\x03\x55\x04\x24\x30\x03abc",
        b"\x30\x82\x00\x05\x06\x03\x55\x04\x24",
        b"\x30\x84\xff\xff\xff\xff" + bytes(300),
        b"\x30\x00",
        b"\x30\x83\x01\x00\x00" + bytes(40_000),
        b"\x30\x85\x00\x00\x00\x00\x10" + bytes(40),
        b"\x31\x82\x00\x04abcd",
        b"".join(bytes((0x30, 2 * inside)) for inside in reversed(range(64))),
    ],
    ids=[
        *("cut", "indefinite", "no certificate", "text", "container", "empty container", "4 GiB", "empty"),
        *("over 64 KiB", "length of 5 bytes", "a SET", "nested"),
    ],
)
def test_a_broken_certificate_spoils_its_own_key_only(content: bytes) -> None:
    provider = provider_of(WithFile(0xC000, content))
    with pytest.raises(CertificateError, match="C000"):
        provider.identity(KeyRole.SIGNATURE)
    assert {identity.role for identity in provider.identities()} == {KeyRole.ENCRYPTION, KeyRole.AUTHENTICATION}
    sign(provider.identity(KeyRole.AUTHENTICATION), PSS)


def der_of(role: KeyRole) -> bytes:
    with demail_hw.open_provider("sim:") as provider:
        return provider.identity(role).certificate.public_bytes(Encoding.DER)


BROKEN_INSIDE = {
    "version": ("a003020102", "a003020109"),
    "kind of key": ("2a864886f70d010101", "2a864886f70d010163"),
    "public exponent": ("0203010001", "0203010000"),
    "name": ("0c1254455354", "0c12ff455354"),
}
"""What cryptography finds only when it is asked for that part: hexadecimal, good and broken."""


@pytest.mark.parametrize(("good", "broken"), BROKEN_INSIDE.values(), ids=BROKEN_INSIDE)
def test_what_is_broken_inside_a_certificate_spoils_its_own_key_only(good: str, broken: str) -> None:
    der = der_of(KeyRole.SIGNATURE).hex()
    assert good in der
    provider = provider_of(WithFile(0xC000, bytes.fromhex(der.replace(good, broken))))
    with pytest.raises(CertificateError, match="C000"):
        provider.identity(KeyRole.SIGNATURE)
    assert len(provider.identities()) == 2


@pytest.mark.parametrize(("good", "broken"), BROKEN_INSIDE.values(), ids=BROKEN_INSIDE)
def test_what_is_broken_inside_an_issuer_shortens_the_chain(good: str, broken: str) -> None:
    der = telesec_ca().intermediate.public_bytes(Encoding.DER).hex()
    provider = provider_of(WithFile(0xC008, bytes.fromhex(der.replace(good, broken))))
    assert provider.identity(KeyRole.SIGNATURE).chain == ()


def test_a_certificate_file_that_cannot_be_read_spoils_its_own_key_only(caplog: pytest.LogCaptureFixture) -> None:
    class Shut(WithFile):
        def change(self, command: bytes, answer: bytes) -> bytes:
            shut = command[1] == READ_BINARY and self.selected == bytes.fromhex("C000")
            return bytes.fromhex("6982") if shut else answer

    provider = provider_of(Shut(0xC000, b""))
    for _ in range(2):
        with pytest.raises(CertificateError, match=r"C000.*6982") as caught:
            provider.identity(KeyRole.SIGNATURE)
        assert len(traceback.extract_tb(caught.value.__traceback__)) == 2  # here and there, however often
    assert [len(provider.identities()) for _ in range(2)] == [2, 2]
    assert caplog.records == [], "who asked for it was told by the error"
    again = provider_of(Shut(0xC000, b""))
    assert [len(again.identities()) for _ in range(2)] == [2, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("broken", [b"\x30\x82\x10\x00garbage", b"\x31\x82\x00\x04abcd"])
def test_a_broken_file_does_not_hide_a_good_one(broken: bytes, caplog: pytest.LogCaptureFixture) -> None:
    card = WithFile(0xC000, broken)
    card.card = WithFile(0x4331, der_of(KeyRole.SIGNATURE))
    sign(provider_of(card).identity(KeyRole.SIGNATURE))
    assert "C000" in caplog.text


def test_an_imported_certificate_goes_before_the_cards_own_and_both_are_decrypted_for() -> None:
    before = provider_of(open_card("netkey3")).identity(KeyRole.ENCRYPTION)
    assert before.further_certificates == ()
    imported = issue(before.certificate.public_key())
    card = WithFile(0x43B1, imported.public_bytes(Encoding.DER))
    identity = provider_of(card).identity(KeyRole.ENCRYPTION)
    assert identity.certificate == imported
    assert identity.further_certificates == (before.certificate,)
    for recipient in (imported, before.certificate):
        envelope = PKCS7EnvelopeBuilder().set_data(b"secret").add_recipient(recipient).encrypt(Encoding.DER, [])
        assert cms.decrypt(envelope, identity) == b"secret"


def test_a_broken_file_is_told_of_before_one_of_another_key() -> None:
    card = WithFile(0x4331, b"\x30\x82\x10\x00garbage")
    card.card = WithFile(0xC000, der_of(KeyRole.ENCRYPTION))
    with pytest.raises(CertificateError, match="4331"):
        provider_of(card).identity(KeyRole.SIGNATURE)


class WithRecord(Counted):
    """Answers READ RECORD of one number, of the first EF.PK, as a test says."""

    def __init__(self, number: int, answer: str) -> None:
        super().__init__(open_card("netkey3"))
        self._number = number
        self._answer = bytes.fromhex(answer)

    def change(self, command: bytes, answer: bytes) -> bytes:
        mine = command[1] == 0xB2 and command[2] == self._number and self.selected == bytes.fromhex("4531")
        return self._answer if mine else answer


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("status", ["6a83", "6a82"])
def test_half_a_public_key_is_not_taken_for_none(number: int, status: str) -> None:
    provider = provider_of(WithRecord(number, status))
    with pytest.raises(CertificateError, match=f"4531.*{status.upper()}"):
        provider.identity(KeyRole.SIGNATURE)
    assert len(provider.identities()) == 2


def with_exponents(*, certificate: int, file: int) -> TcosKeyProvider:
    """The signature key's modulus with one exponent in the certificate, and one in EF.PK."""
    with demail_hw.open_provider("sim:") as usual:
        key = usual.identity(KeyRole.SIGNATURE).private_key.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    other = rsa.RSAPublicNumbers(certificate, key.public_numbers().n).public_key()
    issued = telesec_ca().issue_card_certificate(KeyRole.SIGNATURE, other)
    card = WithFile(0xC000, issued.public_bytes(Encoding.DER))
    card.card = WithRecord(2, f"{file:06x}9000")
    return provider_of(card)


def test_the_exponent_counts_as_well() -> None:
    for certificate, file in ((65537, 3), (3, 65537)):
        with pytest.raises(CertificateError, match="another key"):
            with_exponents(certificate=certificate, file=file).identity(KeyRole.SIGNATURE)
    assert with_exponents(certificate=3, file=3).identity(KeyRole.SIGNATURE)


def test_a_card_without_the_public_key_takes_the_first_certificate_and_says_so_when_it_is_wrong() -> None:
    card = WithFile(0xC000, der_of(KeyRole.ENCRYPTION))
    del card.card.file_system.root.files[0xDF02].files[0x4531]
    with pytest.raises(SignatureInvalid) as caught:
        sign(provider_of(card).identity(KeyRole.SIGNATURE))
    assert "certificate" in caught.value.remedy


def test_the_certificate_of_another_key_is_not_taken() -> None:
    with pytest.raises(CertificateError, match="another key"):
        provider_of(WithFile(0xC000, der_of(KeyRole.ENCRYPTION))).identity(KeyRole.SIGNATURE)


@pytest.mark.parametrize("behind", [b"", b"\xff" * 64, b"\x00" * 64, b"\x30\x82garbage"])
def test_a_bare_certificate_is_taken_as_well_whatever_is_behind_it(behind: bytes) -> None:
    provider = provider_of(WithFile(0xC000, der_of(KeyRole.SIGNATURE) + behind))
    sign(provider.identity(KeyRole.SIGNATURE))


def test_a_card_that_gives_a_byte_at_a_time_is_not_waited_for() -> None:
    class Dripping(Counted):
        def change(self, command: bytes, answer: bytes) -> bytes:
            dripping = command[1] == READ_BINARY and self.selected == bytes.fromhex("C000")
            return answer[:1] + answer[-2:] if dripping else answer

    card = Dripping(open_card("netkey3"))
    with pytest.raises(CertificateError, match="C000"):
        provider_of(card).identity(KeyRole.SIGNATURE)
    assert card.log.count(READ_BINARY) < 300


def test_an_empty_certificate_file_is_no_certificate() -> None:
    with pytest.raises(KeyNotFound, match="no certificate"):
        provider_of(WithFile(0xC000, b"\xff" * 2048)).identity(KeyRole.SIGNATURE)


def test_broken_issuer_files_shorten_the_chain() -> None:
    provider = provider_of(WithFile(0xC008, b"\x30\x82\x00\x04abcd"))
    assert provider.identity(KeyRole.SIGNATURE).chain == ()


def test_card_is_checked_before_anything_else() -> None:
    address = "sim:netkey3?card=89490173510080407136"
    with demail_hw.open_provider(address, pin=lambda: b"123456") as provider:
        assert len(provider.identities()) == 3
    with pytest.raises(UnexpectedCard, match="8949017351"):
        demail_hw.open_provider("sim:netkey3?card=99", pin=lambda: b"123456")


class OtherAtr(Counted):
    def power_on(self) -> bytes:
        super().power_on()
        return bytes.fromhex("3B9F96813FC7828031E073FE211F63004502C08F9000")


def test_an_unknown_card_is_named_by_its_atr() -> None:
    with pytest.raises(UnknownCard, match="3B9F96"):
        session_of(OtherAtr(open_card("netkey3")))


def test_literal_pins_and_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        demail_hw.open_provider("sim:", pin="123456")
    with pytest.raises(
        ValueError, match="which is one of these: global, puk, nks-1, nks-2, sigg-1, sigg-2"
    ) as caught:
        demail_hw.open_provider("sim:", which="123456")
    assert "123456" not in str(caught.value)
    assert caught.value.__suppress_context__
    with pytest.raises(ValueError, match="scheme"):
        demail_hw.open_provider("netkey3")


@pytest.mark.parametrize(
    ("card", "which", "role", "remedy"),
    [
        ("signature-card-v2", "sigg-1", "signature", "Name a PIN that opens one (which= or --which): global."),
        ("netkey3", "sigg-1", "encryption", "Name a PIN that opens one (which= or --which): global, nks-1, nks-2."),
    ],
)
def test_a_pin_that_opens_no_such_key(card: str, which: str, role: str, remedy: str) -> None:
    with (
        demail_hw.open_provider(f"sim:{card}", which=which) as provider,
        pytest.raises(KeyNotFound, match=f"The PIN {which} opens no {role} key") as caught,
    ):
        provider.identity(role)
    assert caught.value.remedy == remedy


def test_an_unknown_role_is_told_which_there_are() -> None:
    with (
        demail_hw.open_provider("sim:") as provider,
        pytest.raises(ValueError, match="no key role 'seal'; there are: signature, encryption, authentication"),
    ):
        provider.identity("seal")


@pytest.mark.parametrize("uri", [None, 1, b"sim:"])
def test_what_is_no_address_at_all(uri: object) -> None:
    with pytest.raises(TypeError, match="the address is an Address, or its text"):
        open_provider(uri)


@pytest.mark.parametrize("pin", [io.BytesIO(b"123456"), b"123456", 123456], ids=["stream", "bytes", "number"])
def test_what_is_no_pin_source_is_refused_at_once(pin: object) -> None:
    with pytest.raises(TypeError, match="PIN source"):
        open_provider("sim:", pin=pin)
