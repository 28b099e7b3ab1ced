"""The certificates of every card by the card manager: what is listed, taken in, refused, and left by an accident."""

import contextlib
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certificate_bench import DER, IMPORTED, NKS, PIN, carry_out, ef, erase, managing, public_key, put, write
from demail_hw.card_manager.certificates import CertificateState
from demail_hw.errors import (
    CertificateError,
    FileNotFound,
    KeyNotFound,
    Outcome,
    PinIncorrect,
    PinNotInitialized,
    PinRefused,
    SecurityStatus,
)
from demail_hw.identity import KeyRole
from demail_hw.interfaces import Timeouts
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.certificate_file import unwrap, wrap
from demail_hw.keys.certificates import read_key_certificate
from demail_hw.keys.provider import TcosKeyProvider
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw.tcos.layout import CertificateKind, PinName, StorageForm
from demail_hw_simulators.ca import telesec_ca
from demail_hw_simulators.card.access import NEVER, FileRules
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import TransparentFile
from demail_hw_simulators.card.personalities import PERSONALITIES, netkey3, open_card
from demail_hw_simulators.sim_reader import SimulatedReader
from issued import issue

VERIFY, UPDATE = 0x20, 0xD6
WRONG = b"975310"
SIGG = 0xDF01
EMPTY, BROKEN, UNREADABLE = CertificateState.EMPTY, CertificateState.BROKEN, CertificateState.UNREADABLE
BARE, CONTAINER = StorageForm.BARE, StorageForm.CONTAINER


def refusal(card: SimulatedTcosCard, certificate: x509.Certificate, name: str = "4331") -> CertificateError:
    """Why it is not taken; no byte was written and no PIN sent for it."""
    with managing(card) as certificates, pytest.raises(CertificateError) as caught:
        certificates.plan_import(certificate, certificates.file(name))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert (card.instructions[UPDATE], card.instructions[VERIFY]) == (0, 0)
    return caught.value


# --- what is listed


@pytest.mark.parametrize("personality", PERSONALITIES)
def test_every_file_of_every_card_is_listed_once_and_no_pin_is_asked_for(personality: str) -> None:
    card = open_card(personality)
    with managing(card) as certificates:
        entries = certificates.entries()
    names = [entry.file.name for entry in entries]
    assert len(names) == len(set(names)) > 5
    assert not [entry.file.name for entry in entries if entry.state is BROKEN]
    assert {entry.form for entry in entries if entry.certificate} == {CONTAINER}
    assert card.instructions[VERIFY] == 0


def test_each_certificate_is_with_its_key() -> None:
    with managing(netkey3()) as certificates:
        found = {entry.file.name: entry for entry in certificates.entries()}
    roles = {name: entry.key and (entry.key.application.name, entry.key.role) for name, entry in found.items()}
    assert roles["NKS/C000"] == ("NKS", KeyRole.SIGNATURE)
    assert roles["NKS/C200"] == ("NKS", KeyRole.ENCRYPTION)
    assert roles["NKS/C500"] == ("NKS", KeyRole.AUTHENTICATION)
    assert roles["SIGG/C000"] == ("SIGG", KeyRole.SIGNATURE)
    assert roles["NKS/C201"] is None
    assert {name for name, entry in found.items() if entry.state is EMPTY} == {
        "NKS/4331", "NKS/4332", "NKS/43B1", "NKS/43B2", "NKS/4371", "NKS/4372", "NKS/B000",
    }  # fmt: skip
    assert [name for name, entry in found.items() if entry.file.kind is CertificateKind.CA] == [
        "NKS/C008", "SIGG/C008", "SIGG/C00E", "NKS/B000",
    ]  # fmt: skip


@pytest.mark.parametrize("public_key_file", [True, False], ids=["EF.PK", "no EF.PK"])
@pytest.mark.parametrize(
    ("user", "used"),
    [(None, 0xC000), ("nks-80", 0x4332), ("nks-81", 0xC000)],
    ids=["the card's alone", "the user's too", "a stranger's"],
)
def test_the_certificate_that_a_key_is_used_with_is_marked(
    user: str | None, used: int, public_key_file: bool
) -> None:
    card = netkey3()
    if user:
        put(card, issue(public_key(user)).public_bytes(Encoding.DER), 0x4332)
    if not public_key_file:
        del card.file_system.root.child(NKS).files[0x4531]  # type: ignore[union-attr]
    with managing(card) as certificates:
        marked = [entry.file for entry in certificates.entries() if entry.in_use]
        assert [file.identifier for file in marked if file.application.name == "NKS"] == [used, 0xC200, 0xC500]
        assert certificates.certificate_of(KeyRole.SIGNATURE) == certificates.certificate(marked[0])
        plan = certificates.plan_erase(certificates.file("4332"))
        assert plan.before.in_use == (used == 0x4332)
        assert plan.use is not None
        assert (plan.use.before != plan.use.after) == plan.before.in_use


@pytest.mark.parametrize("personality", PERSONALITIES)
def test_what_is_marked_is_what_each_key_is_used_with(personality: str) -> None:
    with managing(open_card(personality)) as certificates:
        marked = {entry.certificate for entry in certificates.entries() if entry.in_use}
        used = set()
        for key in certificates._profile.keys:
            with certificates._session.transaction() as deadline, contextlib.suppress(KeyNotFound):
                used.add(read_key_certificate(certificates._card, key, deadline=deadline).certificate)
    assert marked == used


def test_a_file_is_read_as_what_is_in_it() -> None:
    card = netkey3()
    contents = {
        0x4331: DER,
        0x4332: wrap(DER, CONTAINER),
        0x43B1: DER[:-1] + b"\0" * 4000,
        0x43B2: b"garbage",
        0x4371: DER[:100],
        0x4372: b"\x00",
    }
    for identifier, content in contents.items():
        put(card, content[:2048], identifier)
    with managing(card) as certificates:
        found = {entry.file.identifier: entry for entry in certificates.entries()}
    assert (found[0x4331].form, found[0x4331].certificate) == (BARE, IMPORTED)
    assert (found[0x4332].form, found[0x4332].certificate) == (CONTAINER, IMPORTED)
    assert found[0x4331].key is not None
    assert found[0x43B2].state is found[0x4371].state is BROKEN
    assert all(found[each].problem for each in (0x43B2, 0x4371))
    assert found[0x4372].state is EMPTY


def test_applications_and_files_that_a_card_lacks_are_not_listed() -> None:
    card = netkey3()
    del card.file_system.root.files[SIGG]
    del card.file_system.root.files[NKS].files[0x4332]  # type: ignore[union-attr]
    with managing(card) as certificates:
        names = [entry.file.name for entry in certificates.entries()]
        assert not [name for name in names if name.startswith("SIGG")]
        assert "NKS/4332" not in names
        with pytest.raises(KeyNotFound, match="not on this card"):
            certificates.certificate(certificates.file("SIGG/C000"))
        with pytest.raises(FileNotFound):
            certificates.plan_import(IMPORTED, certificates.file("4332"))


@pytest.mark.parametrize("identifier", [0x4331, 0xC000, 0xC201])
def test_a_file_that_cannot_be_read_does_not_hide_the_others(identifier: int) -> None:
    card = netkey3()
    ef(card, identifier).rules = FileRules(read=NEVER)
    with managing(card) as certificates:
        found = {entry.file.name: entry for entry in certificates.entries()}
        unreadable = found.pop(f"NKS/{identifier:04X}")
        assert (unreadable.state, unreadable.certificate, unreadable.form) == (UNREADABLE, None, None)
        assert "6982" in unreadable.problem
        assert UNREADABLE not in {entry.state for entry in found.values()}
        assert found["NKS/C500"].key is not None
        with pytest.raises(CertificateError, match="6982"):
            certificates.certificate(unreadable.file)
        assert certificates.file_for(KeyRole.SIGNATURE).identifier == (0x4332 if identifier == 0x4331 else 0x4331)


def test_a_certificate_that_is_not_of_the_key_that_its_file_is_for() -> None:
    card = netkey3()
    for identifier, name in ((0x4331, "nks-81"), (0x4332, "idkey-df07-84")):
        put(card, issue(public_key(name)).public_bytes(Encoding.DER), identifier)
    with managing(card) as certificates:
        found = {entry.file.identifier: entry for entry in certificates.entries()}
    assert found[0x4331].key is not None
    assert found[0x4331].key.role is KeyRole.ENCRYPTION
    assert found[0x4332].key is None
    for identifier in (0x4331, 0x4332):
        assert found[identifier].problem == "not of the NetKey signature key, which this file is for"
    assert not [entry for entry in found.values() if entry.problem and entry.file.identifier >> 8 != 0x43]


def test_names_of_files() -> None:
    with managing(netkey3()) as certificates:
        assert certificates.file("nks/43b1") is not None
        assert certificates.file("43B1") == certificates.file("NKS/43B1")
        with pytest.raises(KeyNotFound, match="several") as caught:
            certificates.file("C000")
        assert "NKS/C000, SIGG/C000" in caught.value.remedy
        for name in ("4399", "", "NKS", "DF07/4331", "NKS/C0000"):
            with pytest.raises(KeyNotFound, match="no certificate file"):
                certificates.file(name)


def test_a_certificate_with_its_chain() -> None:
    card = netkey3()
    put(card, b"garbage", 0x4332)
    with managing(card) as certificates:
        certificate = certificates.certificate_of(KeyRole.AUTHENTICATION)
        assert certificates.certificate(certificates.file("NKS/C500")) == certificate
        assert certificates.chain(certificate) == telesec_ca().chain
        assert certificates.chain(IMPORTED) == ()
        with pytest.raises(KeyNotFound, match="empty"):
            certificates.certificate(certificates.file("4331"))
        with pytest.raises(CertificateError, match="4332"):
            certificates.certificate(certificates.file("4332"))


# --- import and erase, on every card

PLACES = [
    ("netkey3", "4331", NKS, "nks-80"),
    ("netkey3", "43B2", NKS, "nks-81"),
    ("netkey3", "4371", NKS, "nks-82"),
    ("netkey3-fresh", "4332", NKS, "nks-80"),
    ("netkey3-fresh", "43B1", NKS, "nks-81"),
    ("netkey3-fresh", "4372", NKS, "nks-82"),
    ("netkey2", "4332", 0xDF01, "netkey2-nks-80"),
    ("netkey2", "43B1", 0xDF01, "netkey2-nks-81"),
    ("netkey2", "4372", 0xDF01, "netkey2-nks-82"),
    ("idkey", "DF07/4331", 0xDF07, "idkey-df07-84"),
    ("idkey", "DF07/4332", 0xDF07, "idkey-df07-85"),
    ("idkey", "DF08/4331", 0xDF08, "idkey-df08-81"),
    ("signature-card-v2", "NKS/C000", NKS, "signature-card-v2-p256-nks-80"),
    ("signature-card-v2", "43B1", NKS, "signature-card-v2-p256-nks-81"),
    ("signature-card-v2", "C500", NKS, "signature-card-v2-p256-nks-82"),
    ("signature-card-v2-brainpool", "4331", NKS, "signature-card-v2-brainpool-nks-80"),
]


def in_use(personality: str) -> SimulatedTcosCard:
    """A card whose owner has set the PINs that were delivered as NullPINs."""
    card = open_card(personality)
    for pin in card.file_system.root.pins.values():
        if not pin.initialized:
            pin.change(PIN)
    return card


def test_there_is_a_place_on_every_card() -> None:
    assert {personality for personality, *_ in PLACES} == set(PERSONALITIES) - {"telesec"}  # netkey3 by another name


@pytest.mark.parametrize("form", StorageForm)
@pytest.mark.parametrize(("personality", "name", "directory", "key"), PLACES)
def test_a_certificate_goes_in_and_out(
    personality: str, name: str, directory: int, key: str, form: StorageForm
) -> None:
    card = in_use(personality)
    certificate = issue(public_key(key))
    identifier = int(name.rpartition("/")[2], 16)
    with managing(card) as certificates:
        file = certificates.file(name)
        plan = certificates.plan_import(certificate, file, form=form)
        assert card.instructions[UPDATE] == card.instructions[VERIFY] == 0
        carry_out(certificates, plan)
        entry = next(entry for entry in certificates.entries() if entry.file == file)
    assert (entry.certificate, entry.form) == (certificate, form)
    assert entry.key is not None
    content = bytes(ef(card, identifier, directory).content)
    assert content == wrap(certificate.public_bytes(Encoding.DER), form).ljust(plan.size, b"\xff")
    erase(card, name)
    assert set(ef(card, identifier, directory).content) == {0xFF}
    assert card.instructions[UPDATE] == len(plan.writes) * 2 - 1


def test_a_card_as_it_is_delivered_takes_none_before_its_pin_was_set() -> None:
    card = open_card("netkey3-fresh")
    with pytest.raises(PinNotInitialized) as caught:
        write(card)
    assert "pin initialize" in caught.value.remedy
    assert (card.instructions[UPDATE], card.instructions[VERIFY]) == (0, 1)  # the one that asks how it is


def test_the_form_is_that_of_the_other_certificates() -> None:
    def form_on(card: SimulatedTcosCard) -> StorageForm | None:
        with managing(card) as certificates:
            return certificates.plan_import(IMPORTED, certificates.file("4331")).form

    card = netkey3()
    assert form_on(card) is CONTAINER
    put(card, DER, 0x4331)
    assert form_on(card) is BARE  # what is replaced counts first
    put(card, b"", 0x4331)
    put(card, DER, 0xC000)
    assert form_on(card) is BARE
    for directory in (NKS, SIGG):
        for file in card.file_system.root.files[directory].files.values():  # type: ignore[union-attr]
            if isinstance(file, TransparentFile):
                file.content[:] = b"\xff" * file.size
    assert form_on(card) is CONTAINER


def test_a_shorter_certificate_leaves_nothing_of_a_longer_one() -> None:
    card = netkey3()
    write(card, issue(public_key(), filling=900))
    write(card)
    assert bytes(ef(card).content) == wrap(DER, CONTAINER).ljust(2048, b"\xff")


def test_what_is_there_already_is_not_written_again() -> None:
    card = netkey3()
    write(card)
    before = card.instructions.copy()
    write(card)
    erase(card, "4332")
    assert (card.instructions[UPDATE], card.instructions[VERIFY]) == (before[UPDATE], before[VERIFY])


def test_a_certificate_fits_to_the_last_byte() -> None:
    def longer(by: int) -> x509.Certificate:
        return issue(public_key(), filling=filling + by)

    filling = 1000
    filling += 2048 - len(wrap(longer(0).public_bytes(Encoding.DER), CONTAINER))
    card = netkey3()
    with managing(card) as certificates:
        assert certificates.plan_import(longer(0), certificates.file("4331")).length == 2048
    error = refusal(card, longer(1))
    assert "2049 bytes" in error.message
    assert "--form bare" in error.remedy
    assert "--form" not in refusal(card, issue(public_key(), filling=4000)).remedy
    write(card, longer(0))
    assert unwrap(bytes(ef(card).content)) == longer(0).public_bytes(Encoding.DER)


def test_the_file_for_a_role_is_the_first_empty_one() -> None:
    card = netkey3()
    with managing(card) as certificates:
        for expected in ("NKS/4331", "NKS/4332"):
            file = certificates.file_for(KeyRole.SIGNATURE)
            assert file.name == expected
            carry_out(certificates, certificates.plan_import(IMPORTED, file))
        with pytest.raises(KeyNotFound, match="empty") as caught:
            certificates.file_for(KeyRole.SIGNATURE)
        assert "NKS/4331, NKS/4332" in caught.value.remedy


def test_the_file_for_a_role_is_the_cards_own_where_that_is_empty_and_the_users_to_write() -> None:
    card = open_card("signature-card-v2")
    with managing(card) as certificates:
        assert certificates.file_for(KeyRole.SIGNATURE).name == "NKS/4331"
    put(card, b"", 0xC000)
    with managing(card) as certificates:
        assert certificates.file_for(KeyRole.SIGNATURE).name == "NKS/C000"


def test_a_users_certificate_does_not_decide_what_the_cards_own_tells() -> None:
    card = open_card("signature-card-v2")
    stranger = issue(ec.generate_private_key(ec.SECP256R1()).public_key(), name="stranger")
    put(card, stranger.public_bytes(Encoding.DER), 0x4331)
    mine = issue(public_key("signature-card-v2-p256-nks-80"))
    with managing(card) as certificates:
        own = certificates.certificate(certificates.file("NKS/C000"))
        found = {entry.file.name: entry for entry in certificates.entries()}
        assert certificates.certificate_of(KeyRole.SIGNATURE) == own
        assert found["NKS/C000"].key is not None
        assert not found["NKS/C000"].problem
        assert found["NKS/4331"].key is None
        assert "Signature Card signature key" in found["NKS/4331"].problem
        with pytest.raises(CertificateError, match="no key of this card"):
            certificates.plan_import(stranger, certificates.file("4332"))
        carry_out(certificates, certificates.plan_import(mine, certificates.file("4332")))
        assert certificates.certificate_of(KeyRole.SIGNATURE) == mine  # what is imported and matches goes first


def test_files_that_disagree_are_told(caplog: pytest.LogCaptureFixture) -> None:
    card = open_card("signature-card-v2")
    put(card, b"", 0xC000)
    keys = (ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(2))
    for identifier, key in zip((0x4331, 0x4332), keys, strict=True):
        put(card, issue(key, name=f"{identifier:04X}").public_bytes(Encoding.DER), identifier)
    with managing(card) as certificates:
        assert certificates.certificate_of(KeyRole.SIGNATURE).subject.rfc4514_string() == "CN=4331"
        assert "in 4332 and 4331 have different public keys; that in 4331 counts" in caplog.text
        found = {entry.file.name: entry for entry in certificates.entries()}
        assert "Signature Card signature key" in found["NKS/4332"].problem


def test_what_was_imported_is_a_key_providers_certificate_where_the_card_has_no_other() -> None:
    card = netkey3()
    put(card, b"", 0xC000)
    write(card)
    reader = SimulatedReader(card)
    session = CardSession(reader, reader.connect(deadline=time.monotonic() + 30), timeouts=Timeouts())
    with TcosKeyProvider(session, CallablePinSource(lambda: PIN), ledger=MemoryPinLedger()) as provider:
        assert provider.identity(KeyRole.SIGNATURE).certificate == IMPORTED


@pytest.mark.parametrize(("which", "pin"), [(PinName.NKS_1, b"111111"), (PinName.NKS_2, b"222222")])
def test_another_pin_of_the_application_writes_too(which: PinName, pin: bytes) -> None:
    card = netkey3()
    with managing(card) as certificates:
        plan = certificates.plan_import(IMPORTED, certificates.file("4331"))
        certificates.carry_out(plan, CallablePinSource(lambda: pin), which=which)
    assert unwrap(bytes(ef(card).content)) == DER


def test_progress_counts_what_is_written_and_read_back() -> None:
    steps: list[int] = []
    with managing(netkey3()) as certificates:
        plan = certificates.plan_import(IMPORTED, certificates.file("4331"))
        certificates.carry_out(plan, CallablePinSource(lambda: PIN), progress=steps.append)
    assert sum(steps) == 1 + 2047 + 1 + 2 * 2048


# --- what is refused before a byte is written


def test_a_certificate_of_another_key() -> None:
    error = refusal(netkey3(), issue(public_key("nks-81")))
    assert "belongs to the NetKey encryption key" in error.message
    error = refusal(netkey3(), issue(public_key("idkey-df07-84")))
    assert "belongs to no key of this card" in error.message
    assert "csr" in error.remedy
    assert "no key" in refusal(netkey3(), issue(public_key("signature-card-v2-p256-nks-80"))).message


def test_a_sigg_certificate_is_not_taken_for_the_signature_key_of_netkey() -> None:
    assert "SigG signature key" in refusal(netkey3(), issue(public_key("sigg-84"))).message


@pytest.mark.parametrize("name", ["NKS/C000", "SIGG/C000", "C201", "NKS/C008", "B000"])
def test_a_file_that_is_not_the_users(name: str) -> None:
    card = netkey3()
    assert "not for the user" in refusal(card, IMPORTED, name).message
    with managing(card) as certificates, pytest.raises(CertificateError, match="not for the user"):
        certificates.plan_erase(certificates.file(name))


def test_dates_are_a_warning() -> None:
    with managing(netkey3()) as certificates:
        file = certificates.file("4331")
        plans = [
            certificates.plan_import(issue(public_key(), first_day=first, last_day=last), file)
            for first, last in ((-2, -1), (1, 2), (-1, 1))
        ]
    assert ["expired" in "".join(plan.warnings) for plan in plans] == [True, False, False]
    assert ["not valid before" in "".join(plan.warnings) for plan in plans] == [False, True, False]


@pytest.mark.parametrize(("last_day", "warned"), [(-1, True), (1, False)])
def test_a_renewal_behind_an_expired_certificate_is_a_warning(last_day: int, warned: bool) -> None:
    card = netkey3()
    put(card, issue(public_key(), first_day=-2, last_day=last_day).public_bytes(Encoding.DER), 0x4331)
    with managing(card) as certificates:
        plan = certificates.plan_import(issue(public_key(), first_day=-1, last_day=9), certificates.file("4332"))
    told = "".join(plan.warnings)
    assert ("goes on with expired" in told) is warned
    assert ("certs erase URI --file NKS/4331" in told) is warned


def test_a_plan_knows_whose_certificate_goes() -> None:
    card = netkey3()
    put(card, issue(public_key("nks-81")).public_bytes(Encoding.DER), 0x43B2)
    with managing(card) as certificates:
        key = certificates.plan_erase(certificates.file("43B2")).before.key
    assert key is not None
    assert key.role is KeyRole.ENCRYPTION


def test_where_nothing_tells_the_key_it_has_to_be_said() -> None:
    card = open_card("signature-card-v2")
    put(card, b"", 0xC000)
    mine, stranger = (issue(public_key(f"signature-card-v2-p256-nks-{each}")) for each in (80, 81))
    assert "cannot be checked" in refusal(card, mine, "NKS/C000").message
    assert "--unchecked" in refusal(card, mine, "NKS/C000").remedy
    with managing(card) as certificates:
        file = certificates.file("NKS/C000")
        with pytest.raises(CertificateError, match="where the card has an EC key"):
            certificates.plan_import(IMPORTED, file, unchecked=True)
        carry_out(certificates, certificates.plan_import(mine, file, unchecked=True))
        # Now the first one tells, whatever is said.
        with pytest.raises(CertificateError, match="encryption key"):
            certificates.plan_import(stranger, file, unchecked=True)
        carry_out(certificates, certificates.plan_import(mine, certificates.file("4331")))


def test_a_file_of_a_key_that_is_not_in_the_profile_has_to_be_said() -> None:
    card = open_card("idkey")
    certificate = issue(public_key("idkey-df08-82"))
    assert "cannot be checked" in refusal(card, certificate, "DF08/4332").message
    with managing(card) as certificates:
        carry_out(certificates, certificates.plan_import(certificate, certificates.file("DF08/4332"), unchecked=True))
    assert unwrap(bytes(ef(card, 0x4332, 0xDF08).content)) == certificate.public_bytes(Encoding.DER)


def test_a_public_key_file_is_believed_before_a_certificate() -> None:
    card = netkey3()
    put(card, wrap(issue(public_key("nks-81")).public_bytes(Encoding.DER), CONTAINER), 0xC000)
    write(card)
    assert unwrap(bytes(ef(card).content)) == DER


# --- what changes with it


def test_a_plan_says_which_certificate_the_key_is_used_with_from_then_on() -> None:
    card = netkey3()
    with managing(card) as certificates:
        own = certificates.certificate_of(KeyRole.SIGNATURE)
        first = certificates.plan_import(IMPORTED, certificates.file("4331"))
        assert first.use is not None
        assert (first.use.key.role, first.use.before, first.use.after) == (KeyRole.SIGNATURE, own, IMPORTED)
        carry_out(certificates, first)
        assert certificates.certificate_of(KeyRole.SIGNATURE) == IMPORTED
        later = issue(public_key(), name="later")
        second = certificates.plan_import(later, certificates.file("4332"))
        assert second.use is not None
        assert (second.use.before, second.use.after) == (IMPORTED, IMPORTED)
        carry_out(certificates, second)
        assert certificates.certificate_of(KeyRole.SIGNATURE) == IMPORTED
        gone = certificates.plan_erase(certificates.file("4331"))
        assert gone.use is not None
        assert (gone.use.before, gone.use.after) == (IMPORTED, later)
        carry_out(certificates, gone)
        assert certificates.certificate_of(KeyRole.SIGNATURE) == later


def test_a_key_that_gets_its_first_certificate_and_loses_its_last() -> None:
    card = netkey3()
    put(card, b"", 0xC000)
    with managing(card) as certificates:
        first = certificates.plan_import(IMPORTED, certificates.file("4331"))
        assert first.use is not None
        assert (first.use.before, first.use.after) == (None, IMPORTED)
        carry_out(certificates, first)
        last = certificates.plan_erase(certificates.file("4331"))
        assert last.use is not None
        assert (last.use.before, last.use.after) == (IMPORTED, None)


def test_a_broken_public_key_file_does_not_keep_a_file_from_being_erased() -> None:
    card = netkey3()
    write(card)
    card.file_system.root.child(NKS).child(0x4531).rules = FileRules(read=NEVER)  # type: ignore[union-attr]
    with managing(card) as certificates:
        plan = certificates.plan_erase(certificates.file("4331"))
        assert plan.use is None
        carry_out(certificates, plan)
    assert set(ef(card).content) == {0xFF}


def test_an_issuer_that_the_card_does_not_hold_is_told() -> None:
    card = netkey3()
    with managing(card) as certificates:
        plan = certificates.plan_import(IMPORTED, certificates.file("4331"))
        assert [each for each in plan.warnings if "issuer CN=somebody else's CA" in each]
        own = certificates.certificate_of(KeyRole.SIGNATURE)
        assert certificates.plan_import(own, certificates.file("4331")).warnings == (
            "The certificate is already there in NKS/C000.",
        )
        for identifier, directory in ((0xC008, NKS), (0xC008, SIGG), (0xC00E, SIGG)):
            issuers = ef(card, identifier, directory)
            issuers.content[:] = b"\xff" * issuers.size
        missing = certificates.plan_import(own, certificates.file("4331")).warnings
    assert [each for each in missing if "does not hold the certificate of the issuer CN=" in each]


@pytest.mark.parametrize("there", [0x4331, 0x4332, 0xC000])
def test_a_certificate_that_a_file_of_the_key_holds_is_not_written_again(there: int) -> None:
    card = netkey3()
    put(card, wrap(DER, CONTAINER), there)
    with managing(card) as certificates:
        plan = certificates.plan_import_for(IMPORTED, KeyRole.SIGNATURE)
        assert (plan.file.identifier, plan.writes, plan.form) == (there, (), CONTAINER)
        assert plan.length == len(wrap(DER, CONTAINER))
        carry_out(certificates, plan)
        other_form = certificates.plan_import_for(IMPORTED, KeyRole.SIGNATURE, form=BARE)
        assert (other_form.file.identifier, bool(other_form.writes)) == (there, there != 0xC000)
    assert (card.instructions[UPDATE], card.instructions[VERIFY]) == (0, 0)


def test_a_stranger_that_lies_there_already_is_not_taken_for_done() -> None:
    card = netkey3()
    stranger = issue(public_key("nks-81"))
    put(card, stranger.public_bytes(Encoding.DER))
    with managing(card) as certificates, pytest.raises(CertificateError, match="NetKey encryption key"):
        certificates.plan_import_for(stranger, KeyRole.SIGNATURE)


def without_own_certificate(*users: x509.Certificate) -> SimulatedTcosCard:
    card = open_card("signature-card-v2")
    put(card, b"", 0xC000)
    for identifier, certificate in zip((0x4331, 0x4332), users, strict=False):
        put(card, certificate.public_bytes(Encoding.DER), identifier)
    return card


MINE = issue(public_key("signature-card-v2-p256-nks-80"))
STRANGER = issue(ec.generate_private_key(ec.SECP256R1()).public_key(), name="stranger")


def test_a_strangers_certificate_that_tells_the_key_is_to_be_erased() -> None:
    card = without_own_certificate(STRANGER)
    assert "certs erase URI --file NKS/4331" in refusal(card, MINE, "NKS/C000").remedy
    erase(card, "4331")
    with managing(card) as certificates:
        carry_out(certificates, certificates.plan_import(MINE, certificates.file("NKS/C000"), unchecked=True))
    card.instructions.clear()
    assert "certs erase" not in refusal(card, STRANGER, "4331").remedy  # now it is the card's own that tells


def test_an_import_warns_of_files_that_disagree() -> None:
    with managing(without_own_certificate(MINE, STRANGER)) as certificates:
        plan = certificates.plan_import(MINE, certificates.file("NKS/C000"))
        assert [each for each in plan.warnings if "in 4332 and C000 have different public keys" in each]
        replaced = certificates.plan_import(MINE, certificates.file("4332"))
        assert not [each for each in replaced.warnings if "different public keys" in each]


def test_an_empty_file_says_what_to_do() -> None:
    with managing(netkey3()) as certificates, pytest.raises(KeyNotFound, match="NKS/4372 is empty") as caught:
        certificates.certificate(certificates.file("4372"))
    assert "certs list" in caught.value.remedy


# --- PINs


def test_a_wrong_pin_costs_one_verify_and_nothing_is_written() -> None:
    card, ledger = netkey3(), MemoryPinLedger()
    with managing(card, ledger) as certificates:
        plan = certificates.plan_import(IMPORTED, certificates.file("4331"))
        with pytest.raises(PinIncorrect):
            carry_out(certificates, plan, WRONG)
        # And from now on none, whatever is given.
        with pytest.raises(PinRefused):
            carry_out(certificates, plan)
    assert card.file_system.root.pins[0].tries == 2
    assert card.instructions[UPDATE] == 0
    assert set(ef(card).content) == {0xFF}


def test_a_pin_that_opens_something_else_is_not_sent() -> None:
    card = netkey3()
    with managing(card) as certificates:
        plan = certificates.plan_import(IMPORTED, certificates.file("4331"))
        for which in (PinName.SIGG_1, PinName.PUK):
            with pytest.raises(PinRefused, match="nothing was sent"):
                certificates.carry_out(plan, CallablePinSource(lambda: b"654321"), which=which)
    assert (card.instructions[VERIFY], card.instructions[UPDATE]) == (0, 0)


@pytest.mark.parametrize("which", [PinName.SIGG_1, PinName.PUK])
def test_a_plan_is_checked_without_a_pin(which: PinName) -> None:
    card, ledger = netkey3(), MemoryPinLedger()
    with managing(card, ledger) as certificates:
        plan = certificates.plan_import(IMPORTED, certificates.file("4331"))
        nothing = certificates.plan_erase(certificates.file("4331"))
        certificates.check(plan)
        for each in (plan, nothing):
            with pytest.raises(PinRefused, match="nothing was sent"):
                certificates.check(each, which=which)
        with pytest.raises(PinIncorrect):
            carry_out(certificates, plan, WRONG)
        tries = card.file_system.root.pins[0].tries
        with pytest.raises(PinRefused):
            certificates.check(plan)
        certificates.check(nothing)
    assert card.file_system.root.pins[0].tries == tries
    assert card.instructions[UPDATE] == 0


def test_a_card_that_lets_nobody_write_says_so_and_stays_as_it_was() -> None:
    card = netkey3()
    ef(card).rules = ef(card, 0xC000).rules
    with pytest.raises(SecurityStatus, match=r"NKS/4331 now is as it was\.") as caught:
        write(card)
    assert caught.value.outcome is Outcome.REFUSED
    assert set(ef(card).content) == {0xFF}
