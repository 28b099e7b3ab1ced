"""The certificate files of a card: which there are, by which names, and what is in them."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from demail_hw.card_manager.certificate_entries import (
    CardCommands,
    CertificateEntry,
    CertificateState,
    entry_of,
    with_key,
)
from demail_hw.errors import CardError, CertificateError, FileNotFound, KeyNotFound
from demail_hw.identity import KeyRole
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.certificate_chain import build_chain, read_issuers
from demail_hw.keys.certificate_pairing import KeyFiles
from demail_hw.keys.certificates import read_key_certificate, read_public_half
from demail_hw.tcos.layout import CertificateFile, CertificateKind, KeySlot

__all__ = ["CertificateFiles"]


def _unwatched(count: int) -> None:
    """Nobody waits to see how far it is."""


class CertificateFiles:
    """The certificate files of an open card, to look at. Nothing here asks for a PIN.

    ``state_dir``: the ledger's folder, for the commands that remedies name (``commands``).

    Every method raises, beside what it says, any :class:`~demail_hw.errors.HardwareError` on the way to the card.
    """

    def __init__(self, session: CardSession, state_dir: str | None = None) -> None:
        self.commands = CardCommands(session.uri, state_dir)
        self._session = session
        self._card = session.card
        self._profile = session.card.profile

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
        entries = [entry for entry in map(self.look, writable) if entry is not None]
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

    def file_with(self, certificate: x509.Certificate, role: KeyRole) -> CertificateEntry | None:
        """The first file of the first key of this role that holds this certificate.

        Errors: :class:`~demail_hw.errors.KeyNotFound` if the card has no such key.
        """
        key = self._key(role)
        entries = (self.look(file) for file in self._profile.certificate_files if self._is_for(file, key))
        return next((each for each in entries if each is not None and each.certificate == certificate), None)

    def _is_for(self, file: CertificateFile, key: KeySlot) -> bool:
        return self._profile.key_of(file) is key

    def _key(self, role: KeyRole) -> KeySlot:
        key = next((key for key in self._profile.keys if key.role is role), None)
        if key is None:
            raise KeyNotFound(f"This card has no {role.value} key.")
        return key

    def entries(self, progress: Callable[[int], object] = _unwatched) -> tuple[CertificateEntry, ...]:
        """Every certificate file that the card has, and what is in it. Asks for no PIN.

        ``progress``: called with 1 for each key and for each certificate file of the profile that was looked at.
        """
        halves = tuple(self._halves(progress))
        keys = dict(_public_keys(halves))
        found = {entry.file: entry for entry in self._look_at_all(progress) if entry is not None}
        used = {file for half in halves for file in found if self._is_used(file, half, found)}
        return tuple(
            dataclasses.replace(with_key(entry, keys, self._profile.key_of(file)), in_use=file in used)
            for file, entry in found.items()
        )

    def _is_used(
        self, file: CertificateFile, half: KeyFiles, found: Mapping[CertificateFile, CertificateEntry]
    ) -> bool:
        """Whether the key goes with the certificate in this file."""
        if not self._is_for(file, half.key):
            return False
        ours = {each.identifier: entry.certificate for each, entry in found.items() if self._is_for(each, half.key)}
        looks = {identifier: ours.get(identifier) for identifier in half.key.certificate_files}
        return dataclasses.replace(half, looks=looks).used == file.identifier

    def _look_at_all(self, progress: Callable[[int], object]) -> Iterator[CertificateEntry | None]:
        for file in self._profile.certificate_files:
            yield self.look(file)
            progress(1)

    def certificate(self, file: CertificateFile) -> x509.Certificate:
        """The certificate in a file.

        Errors: :class:`~demail_hw.errors.KeyNotFound` if it is empty or not there;
        :class:`~demail_hw.errors.CertificateError` if it is broken or cannot be read.
        """
        entry = self.look(file)
        if entry is not None and entry.certificate is not None:
            return entry.certificate
        if entry is not None and entry.problem:
            raise CertificateError(f"{file.name}: {entry.problem}", remedy=entry.next_step(self.commands))
        raise KeyNotFound(
            f"{file.name} {'is empty' if entry else 'is not on this card'}.",
            remedy="Name a file that holds one (see demail-hw certs list), or write one into it (certs import)."
            if entry
            else "Name one of those that demail-hw certs list shows.",
        )

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

    def look(self, file: CertificateFile) -> CertificateEntry | None:
        """What is in a file, without its key; None if the card has no such file.

        Each has a transaction of its own, for reading all takes seconds.
        """
        with self._session.transaction() as deadline:
            try:
                content = self._card.read_file(file.application, file.identifier, deadline=deadline)
            except FileNotFound:
                return None
            except CardError as error:  # this file alone: the others can still be read
                return CertificateEntry(file, CertificateState.UNREADABLE, problem=error.message)
        return entry_of(file, content)

    def public_keys(self) -> Iterator[tuple[KeySlot, CertificatePublicKeyTypes]]:
        """Each key of which the card tells the public half."""
        return _public_keys(self._halves(_unwatched))

    def _halves(self, progress: Callable[[int], object]) -> Iterator[KeyFiles]:
        """What tells the public half of each key; nothing of one whose EF.PK or application cannot be read."""
        for key in self._profile.keys:
            half = self._half(key)
            progress(1)
            if half is not None:
                yield half

    def _half(self, key: KeySlot) -> KeyFiles | None:
        try:
            with self._session.transaction() as deadline:
                return read_public_half(self._card, key, deadline=deadline)
        except (CertificateError, FileNotFound):
            return None


def _public_keys(halves: Iterable[KeyFiles]) -> Iterator[tuple[KeySlot, CertificatePublicKeyTypes]]:
    for half in halves:
        public_key = _public_key(half)
        if public_key is not None:
            yield half.key, public_key


def _public_key(half: KeyFiles) -> CertificatePublicKeyTypes | None:
    try:
        return half.public_key
    except CertificateError:
        return None
