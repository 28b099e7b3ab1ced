"""Planning what is written into a certificate file: all that can be checked before a PIN is asked for."""

import dataclasses

from cryptography import x509

from demail_hw.card_manager.certificate_entries import CertificateEntry, entry_of, with_key
from demail_hw.card_manager.certificate_files import CertificateFiles
from demail_hw.card_manager.file_writing import ERASED, erasure, read_all, replacement
from demail_hw.card_manager.import_checks import (
    check_unknown_key,
    fitting,
    foreign_certificate,
    import_warnings,
    need_writable,
)
from demail_hw.card_manager.write_plans import WritePlan, use_of
from demail_hw.errors import CertificateError
from demail_hw.identity import KeyRole
from demail_hw.keys.certificate_pairing import KeyFiles
from demail_hw.keys.certificates import read_key_files
from demail_hw.tcos.layout import CertificateFile, StorageForm

__all__ = ["WritePlanner"]


class WritePlanner(CertificateFiles):
    """The certificate files of an open card, and plans for writing them. Nothing here asks for a PIN."""

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
        need_writable(file)
        held = self._held(file)
        self._check_key(certificate, file, held, unchecked=unchecked)
        used = form or self._usual_form(file)
        size, before = self._read_whole(file)
        content = fitting(certificate, file, size, used)
        same = before == content.ljust(size, ERASED)
        return WritePlan(
            file,
            size,
            self._entry(file, before, held),
            () if same else replacement(content, size),
            certificate,
            used,
            len(content),
            tuple(import_warnings(certificate, self.chain(certificate), held, file, self.commands)),
            None if held is None else use_of(held, file, certificate),
        )

    def plan_import_for(
        self,
        certificate: x509.Certificate,
        role: KeyRole,
        *,
        form: StorageForm | None = None,
        unchecked: bool = False,
    ) -> WritePlan:
        """The same for the file that :meth:`~CertificateFiles.file_for` finds.

        Where a file of that key holds the certificate already, the plan is for this one, and writes nothing unless
        ``form`` is another one and the user may write it. Errors: as for :meth:`plan_import`, and of ``file_for``.
        """
        there = self.file_with(certificate, role)
        if there is None:
            return self.plan_import(certificate, self.file_for(role), form=form, unchecked=unchecked)
        if there.file.writable and form not in (None, there.form):
            return self.plan_import(certificate, there.file, form=form, unchecked=unchecked)
        held = self._held(there.file)
        self._check_key(certificate, there.file, held, unchecked=unchecked)
        size, _ = self._read_whole(there.file)
        length = len(fitting(certificate, there.file, size, there.form or StorageForm.BARE))
        warnings = tuple(import_warnings(certificate, self.chain(certificate), held, there.file, self.commands))
        use = None if held is None else use_of(held, there.file, certificate)
        now = _marked(there, held)
        return WritePlan(there.file, size, now, (), certificate, there.form, length, warnings, use)

    def plan_erase(self, file: CertificateFile) -> WritePlan:
        """What it takes to make a file empty. Errors: as for :meth:`plan_import`."""
        need_writable(file)
        size, before = self._read_whole(file)
        empty = ERASED * size
        writes = () if before == empty else erasure(empty)
        held = self._held_perhaps(file)
        use = None if held is None else use_of(held, file, None)
        return WritePlan(file, size, self._entry(file, before, held), writes, use=use)

    def _held_perhaps(self, file: CertificateFile) -> KeyFiles | None:
        try:
            return self._held(file)
        except CertificateError:  # a broken EF.PK is no reason to keep a certificate
            return None

    def _entry(self, file: CertificateFile, content: bytes, held: KeyFiles | None) -> CertificateEntry:
        entry = with_key(entry_of(file, content), dict(self.public_keys()), self._profile.key_of(file))
        return _marked(entry, held)

    def _held(self, file: CertificateFile) -> KeyFiles | None:
        """What the card holds for the key of a file; None if there is no such key here."""
        key = self._profile.key_of(file)
        if key is None:
            return None
        with self._session.transaction() as deadline:
            return read_key_files(self._card, key, deadline=deadline)

    def _read_whole(self, file: CertificateFile) -> tuple[int, bytes]:
        with self._session.transaction() as deadline:
            opened = self._card.open_file(file.application, file.identifier, deadline=deadline)
            return opened.size, read_all(opened, deadline=deadline)

    def _check_key(
        self, certificate: x509.Certificate, file: CertificateFile, held: KeyFiles | None, *, unchecked: bool
    ) -> None:
        expected = None if held is None else held.public_key
        if held is None or expected is None:
            check_unknown_key(certificate, file, held.key if held else None, unchecked=unchecked)
            return
        public_key = certificate.public_key()
        if public_key != expected:
            owner = next((key for key, known in self.public_keys() if known == public_key), None)
            raise foreign_certificate(file, held, owner, self._profile, self.commands)

    def _usual_form(self, file: CertificateFile) -> StorageForm:
        """That of the first certificate found, in the file itself, its application, or another."""
        others = sorted(self._profile.certificate_files, key=lambda other: other.application is not file.application)
        for entry in map(self.look, (file, *others)):
            if entry is not None and entry.form is not None:
                return entry.form
        return self._profile.certificate_form


def _marked(entry: CertificateEntry, held: KeyFiles | None) -> CertificateEntry:
    return dataclasses.replace(entry, in_use=held is not None and held.used == entry.file.identifier)
