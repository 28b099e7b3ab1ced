"""The certificates on a card: what is in which file, out of it, into it, and away."""

import dataclasses
import datetime
import enum
from collections.abc import Iterator, Mapping
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.card_manager.file_writing import (
    ERASED,
    FileWriter,
    Progress,
    Write,
    erasure,
    read_all,
    replacement,
)
from demail_hw.errors import CardError, CertificateError, FileNotFound, HardwareError, KeyNotFound, PinRefused
from demail_hw.identity import KeyRole
from demail_hw.interfaces import Deadline, PinLedger
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.certificates import (
    build_chain,
    decode_certificate,
    form_of,
    read_issuers,
    read_key_certificate,
    read_public_key,
    unwrap,
    wrap,
)
from demail_hw.keys.pin_guard import KEPT_TRIES, PinGuard
from demail_hw.keys.private_keys import check_kind
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import CertificateFile, CertificateKind, KeySlot, PinName, PinSlot, StorageForm

__all__ = ["CardCertificates", "CertificateEntry", "CertificateState", "WritePlan"]


class CertificateState(enum.Enum):
    """What an EF for a certificate holds."""

    EMPTY = "empty"
    CERTIFICATE = "certificate"
    BROKEN = "broken"
    UNREADABLE = "unreadable"
    """The card does not let it be read."""


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateEntry:
    """A certificate file of a card.

    ``form`` and ``certificate``: None unless ``state`` is CERTIFICATE. ``key``: the key of the card that has the
    certificate's public key, if one has. ``problem``: why there is none to use, or that it is not of the key that its
    file is for.
    """

    file: CertificateFile
    state: CertificateState
    form: StorageForm | None = None
    certificate: x509.Certificate | None = None
    key: KeySlot | None = None
    problem: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class WritePlan:
    """What is to be written into a file, checked as far as that goes without a PIN.

    ``size``: of the EF, in bytes. ``before``: what it holds now. ``writes``: none if it holds the same already.
    ``certificate``, ``form``, ``length`` in bytes: of what is imported; None and 0 to erase. ``warnings``: sentences.
    """

    file: CertificateFile
    size: int
    before: CertificateEntry
    writes: tuple[Write, ...]
    certificate: x509.Certificate | None = None
    form: StorageForm | None = None
    length: int = 0
    warnings: tuple[str, ...] = ()


class CardCertificates:
    """The certificates of an open card.

    ``kept``: tries of the PIN that are never spent. ``attended``: a person types the PIN. Every method raises,
    beside what it says, any :class:`~demail_hw.errors.HardwareError` on the way to the card.
    """

    def __init__(
        self, session: CardSession, ledger: PinLedger, *, kept: int = KEPT_TRIES, attended: bool = False
    ) -> None:
        self._session = session
        self._card = session.card
        self._profile = session.card.profile
        self._ledger = ledger
        self._kept = kept
        self._attended = attended

    # --- which files there are

    def file(self, name: str) -> CertificateFile:
        """The file of a name such as ``4331``, or ``NKS/C000`` where several applications have that number.

        Errors: :class:`~demail_hw.errors.KeyNotFound` if it is none or several of them.
        """
        wanted = name.upper()
        named = {file.name: file for file in self._profile.certificate_files}
        found = [file for full, file in named.items() if wanted in (full, full.rpartition("/")[2])]
        if len(found) == 1:
            return found[0]
        names = ", ".join(file.name for file in found or named.values())
        what = "several certificate files" if found else "no certificate file"
        raise KeyNotFound(f"This card has {what} {name}.", remedy=f"Name one of these: {names}.")

    def file_for(self, role: KeyRole) -> CertificateFile:
        """The file for a certificate of the first key of this role: the first empty one that a user may write.

        A file for the card's own certificate goes first where it is the user who writes it: that one tells the key.
        Errors: :class:`~demail_hw.errors.KeyNotFound` if there is none.
        """
        key = self._key(role)
        writable = [file for file in self._profile.certificate_files if file.writable and self._is_for(file, key)]
        writable.sort(key=lambda file: file.kind is not CertificateKind.CARD)
        entries = [entry for entry in map(self._look, writable) if entry is not None]
        empty = next((entry.file for entry in entries if entry.state is CertificateState.EMPTY), None)
        if empty is not None:
            return empty
        full = ", ".join(entry.file.name for entry in entries)
        raise KeyNotFound(
            f"No file for a certificate of the {key.label} is empty."
            if full
            else f"The card has no file for a further certificate of the {key.label}.",
            remedy=f"Name the one to replace (--file), of these: {full}." if full else "",
        )

    def _is_for(self, file: CertificateFile, key: KeySlot) -> bool:
        return self._profile.key_of(file) is key

    def _key(self, role: KeyRole) -> KeySlot:
        key = next((key for key in self._profile.keys if key.role is role), None)
        if key is None:
            raise KeyNotFound(f"This card has no {role.value} key.")
        return key

    # --- reading

    def entries(self) -> tuple[CertificateEntry, ...]:
        """Every certificate file that the card has, and what is in it. Asks for no PIN."""
        keys = dict(self._public_keys())
        found = (self._look(file) for file in self._profile.certificate_files)
        return tuple(_with_key(entry, keys, self._profile.key_of(entry.file)) for entry in found if entry is not None)

    def certificate(self, file: CertificateFile) -> x509.Certificate:
        """The certificate in a file.

        Errors: :class:`~demail_hw.errors.KeyNotFound` if it is empty or not there;
        :class:`~demail_hw.errors.CertificateError` if it is broken or cannot be read.
        """
        entry = self._look(file)
        if entry is not None and entry.certificate is not None:
            return entry.certificate
        if entry is not None and entry.problem:
            raise CertificateError(f"{file.name}: {entry.problem}")
        raise KeyNotFound(f"{file.name} {'is empty' if entry else 'is not on this card'}.")

    def certificate_of(self, role: KeyRole) -> x509.Certificate:
        """The certificate of the first key of this role. Errors: as for a provider's identity."""
        key = self._key(role)
        with self._session.transaction() as deadline:
            return read_key_certificate(self._card, key, deadline=deadline).certificate

    def chain(self, certificate: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """The issuers above a certificate that are on the card, nearest first."""
        with self._session.transaction() as deadline:
            issuers = read_issuers(self._card, deadline=deadline)
        return build_chain(certificate, issuers)

    def _look(self, file: CertificateFile) -> CertificateEntry | None:
        """None if the card has no such file. Each has a transaction of its own, for reading all takes seconds."""
        with self._session.transaction() as deadline:
            try:
                content = self._card.read_file(file.application, file.identifier, deadline=deadline)
            except FileNotFound:
                return None
            except CardError as error:  # this file alone: the others can still be read
                return CertificateEntry(file, CertificateState.UNREADABLE, problem=error.message)
        return _entry(file, content)

    def _public_keys(self) -> Iterator[tuple[KeySlot, CertificatePublicKeyTypes]]:
        for key in self._profile.keys:
            try:
                public_key = self._public_key(key)
            except (CertificateError, FileNotFound):
                continue
            if public_key is not None:
                yield key, public_key

    def _public_key(self, key: KeySlot) -> CertificatePublicKeyTypes | None:
        with self._session.transaction() as deadline:
            return read_public_key(self._card, key, deadline=deadline)

    # --- writing: the plan

    def plan_import(
        self,
        certificate: x509.Certificate,
        file: CertificateFile,
        *,
        form: StorageForm | None = None,
        unchecked: bool = False,
    ) -> WritePlan:
        """Check everything that can be checked before a byte is written. Asks for no PIN and sends none.

        ``form``: by default that of the other certificates on this card. ``unchecked``: take it though nothing on
        the card tells whose it is.

        Errors: :class:`~demail_hw.errors.CertificateError` if it belongs to another key, is too long, or if the file
        is not the user's to write.
        """
        _need_writable(file)
        self._check_key(certificate, file, unchecked=unchecked)
        used = form or self._usual_form(file)
        der = certificate.public_bytes(Encoding.DER)
        content = wrap(der, used)
        size, before = self._read_whole(file)
        if len(content) > size:
            raise _too_long(file, size, len(content), used, fits_bare=len(der) <= size)
        same = before == content.ljust(size, ERASED)
        return WritePlan(
            file,
            size,
            _entry(file, before),
            () if same else replacement(content, size),
            certificate,
            used,
            len(content),
            tuple(_doubts(certificate)),
        )

    def plan_erase(self, file: CertificateFile) -> WritePlan:
        """What it takes to make a file empty. Errors: as for :meth:`plan_import`."""
        _need_writable(file)
        size, before = self._read_whole(file)
        empty = ERASED * size
        return WritePlan(file, size, _entry(file, before), () if before == empty else erasure(empty))

    def _read_whole(self, file: CertificateFile) -> tuple[int, bytes]:
        with self._session.transaction() as deadline:
            opened = self._card.open_file(file.application, file.identifier, deadline=deadline)
            return opened.size, read_all(opened, deadline=deadline)

    def _check_key(self, certificate: x509.Certificate, file: CertificateFile, *, unchecked: bool) -> None:
        key = self._profile.key_of(file)
        expected = None if key is None else self._public_key(key)
        if key is not None and expected is not None:
            if certificate.public_key() != expected:
                self._refuse_stranger(certificate, file, key)
            return
        if not unchecked:
            raise CertificateError(
                f"Nothing on the card tells the key that {file.name} is for; whether this certificate belongs to it "
                "cannot be checked.",
                remedy="If you are sure, say so: --unchecked.",
            )
        if key is not None:
            check_kind(key, certificate.public_key())

    def _refuse_stranger(self, certificate: x509.Certificate, file: CertificateFile, key: KeySlot) -> NoReturn:
        public_key = certificate.public_key()
        owner = next((other for other, known in self._public_keys() if known == public_key), None)
        raise CertificateError(
            f"The certificate belongs to {f'the {owner.label}' if owner else 'no key of this card'}, "
            f"and {file.name} is for the {key.label}.",
            remedy="Write it into a file of its own key (certs list shows which)."
            if owner
            else "Have one issued for this card's key: demail-hw csr.",
        )

    def _usual_form(self, file: CertificateFile) -> StorageForm:
        """That of the first certificate found, in the file itself, its application, or another."""
        others = sorted(self._profile.certificate_files, key=lambda other: other.application is not file.application)
        for entry in map(self._look, (file, *others)):
            if entry is not None and entry.form is not None:
                return entry.form
        return self._profile.certificate_form

    # --- writing: the deed

    def check(self, plan: WritePlan, *, which: PinName = PinName.GLOBAL) -> None:
        """Raise what :meth:`carry_out` would before it asks for the PIN. Sends none and spends no try."""
        pin = self._pin(plan.file, which)
        if plan.writes:
            with self._session.transaction() as deadline:
                self._guard(None).check(self._card, pin, deadline=deadline)

    def carry_out(
        self,
        plan: WritePlan,
        source: PinSource,
        *,
        which: PinName = PinName.GLOBAL,
        progress: Progress | None = None,
    ) -> None:
        """Verify the PIN, once, write what the plan says, and read it back. Nothing is sent where nothing is to do.

        Errors: :class:`~demail_hw.errors.PinRefused` for a PIN that does not open the file's application; those of
        the PIN guard; whatever interrupts the writing: its text says what the file holds then.
        """
        pin = self._pin(plan.file, which)
        if not plan.writes:
            return
        try:
            self._carry_out(plan, self._guard(source), pin, progress)
        except BaseException:
            self._session.suspect()
            raise

    def _guard(self, source: PinSource | None) -> PinGuard:
        return PinGuard(
            source, serial=self._session.serial, ledger=self._ledger, kept=self._kept, attended=self._attended
        )

    def _carry_out(self, plan: WritePlan, guard: PinGuard, pin: PinSlot, progress: Progress | None) -> None:
        with self._session.transaction() as deadline:
            guard.check(self._card, pin, deadline=deadline)
        with guard.ask(pin) as secret, self._session.transaction() as deadline:
            guard.verify(self._card, pin, secret, deadline=deadline)
            self._write(plan, progress, deadline)

    def _write(self, plan: WritePlan, progress: Progress | None, deadline: Deadline) -> None:
        file = self._card.open_file(plan.file.application, plan.file.identifier, deadline=deadline)
        if file.size != plan.size:
            raise CertificateError(f"{plan.file.name} is not as long as it was; nothing was written.")
        FileWriter(file, plan.file.name, progress).run(plan.writes, deadline=deadline)

    def _pin(self, file: CertificateFile, which: PinName) -> PinSlot:
        able = self._profile.pins_that_open(file.application)
        found = next((pin for pin in able if pin.name is which), None)
        if found is None:
            names = ", ".join(pin.name.value for pin in able)
            raise PinRefused(
                f"The PIN {which.value} lets nobody write {file.name}; nothing was sent.",
                remedy=f"Name another PIN (which= or --which): {names}.",
            )
        return found


def _entry(file: CertificateFile, content: bytes) -> CertificateEntry:
    try:
        der = unwrap(content)
        if der is None:
            return CertificateEntry(file, CertificateState.EMPTY)
        return CertificateEntry(file, CertificateState.CERTIFICATE, form_of(content), decode_certificate(der))
    except HardwareError as error:
        return CertificateEntry(file, CertificateState.BROKEN, problem=error.message)


def _with_key(
    entry: CertificateEntry, keys: Mapping[KeySlot, CertificatePublicKeyTypes], meant: KeySlot | None
) -> CertificateEntry:
    if entry.certificate is None:
        return entry
    public_key = entry.certificate.public_key()
    key = next((key for key, known in keys.items() if known == public_key), None)
    stranger = meant is not None and keys.get(meant, public_key) != public_key
    problem = f"not of the {meant.label}, which this file is for" if meant is not None and stranger else ""
    return dataclasses.replace(entry, key=key, problem=problem)


def _need_writable(file: CertificateFile) -> None:
    if not file.writable:
        who = "issuers" if file.kind is CertificateKind.CA else "the card's own certificate"
        raise CertificateError(
            f"{file.name} is for {who} and not for the user to write.",
            remedy="Name a file that certs list shows as writable.",
        )


def _too_long(
    file: CertificateFile, size: int, length: int, form: StorageForm, *, fits_bare: bool
) -> CertificateError:
    return CertificateError(
        f"The certificate takes {length} bytes ({form.value}), and {file.name} has {size}.",
        remedy="It fits without the container: --form bare." if fits_bare else "Have a shorter one issued.",
    )


def _doubts(certificate: x509.Certificate) -> Iterator[str]:
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc < now:
        yield f"The certificate expired at {certificate.not_valid_after_utc.isoformat()}."
    if certificate.not_valid_before_utc > now:
        yield f"The certificate is not valid before {certificate.not_valid_before_utc.isoformat()}."
