"""Whether a certificate may go into a file of the card, and what to say if not."""

from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.card_manager.certificate_entries import CardCommands
from demail_hw.errors import CertificateError
from demail_hw.keys.certificate_chain import missing_issuer
from demail_hw.keys.certificate_file import wrap
from demail_hw.keys.certificate_pairing import KeyFiles
from demail_hw.keys.private_keys import check_kind
from demail_hw.keys.validity import doubt
from demail_hw.tcos.layout import CertificateFile, CertificateKind, KeySlot, Profile, StorageForm

__all__ = ["check_unknown_key", "fitting", "foreign_certificate", "import_warnings", "need_writable"]


def need_writable(file: CertificateFile) -> None:
    """Errors: :class:`~demail_hw.errors.CertificateError` if it is not for the user to write."""
    if not file.writable:
        who = "issuers" if file.kind is CertificateKind.CA else "the card's own certificate"
        raise CertificateError(
            f"{file.name} is for {who} and not for the user to write.",
            remedy="Name a file that certs list shows as writable.",
        )


def fitting(certificate: x509.Certificate, file: CertificateFile, size: int, form: StorageForm) -> bytes:
    """What the file will begin with. Errors: :class:`~demail_hw.errors.CertificateError` if that is too long."""
    der = certificate.public_bytes(Encoding.DER)
    content = wrap(der, form)
    if len(content) <= size:
        return content
    raise CertificateError(
        f"The certificate takes {len(content)} bytes ({form.value}), and {file.name} has {size}.",
        remedy="It fits without the container: --form bare." if len(der) <= size else "Have a shorter one issued.",
    )


def check_unknown_key(
    certificate: x509.Certificate, file: CertificateFile, key: KeySlot | None, *, unchecked: bool
) -> None:
    """Where nothing on the card tells the key of a file, a person has to say so: ``unchecked``.

    Errors: :class:`~demail_hw.errors.CertificateError`, also if the key can be none of this kind.
    """
    if not unchecked:
        raise CertificateError(
            f"Nothing on the card tells the key that {file.name} is for; whether this certificate belongs to it "
            "cannot be checked.",
            remedy="If you are sure, say so: --unchecked.",
        )
    if key is not None:
        check_kind(key, certificate.public_key())


def foreign_certificate(
    file: CertificateFile, held: KeyFiles, owner: KeySlot | None, profile: Profile, commands: CardCommands
) -> CertificateError:
    """What to say of a certificate that is not of the key that the file is for. ``owner``: the key that it is of."""
    return CertificateError(
        f"The certificate belongs to {f'the {owner.label}' if owner else 'no key of this card'}, "
        f"and {file.name} is for the {held.key.label}.",
        remedy="Write it into a file of its own key (certs list shows which)."
        if owner
        else f"{_doubtful_teller(held, profile, commands)}Have one issued for this card's key: demail-hw csr.",
    )


def _doubtful_teller(held: KeyFiles, profile: Profile, commands: CardCommands) -> str:
    """Where a certificate that anybody with the PIN may have written is all that tells the key."""
    if held.teller is None:
        return ""
    told = next(
        each
        for each in profile.certificate_files
        if each.application is held.key.application and each.identifier == held.teller.file_id
    )
    if told.kind is not CertificateKind.USER:
        return ""
    return (
        f"All that tells this key is the certificate in {told.name}; if that is not of this card, erase it first: "
        f"{commands.erasing(told.name)}. Else: "
    )


def import_warnings(
    certificate: x509.Certificate,
    chain: tuple[x509.Certificate, ...],
    held: KeyFiles | None,
    file: CertificateFile,
    commands: CardCommands,
) -> Iterator[str]:
    """Sentences. ``chain``: the issuers that the card holds. ``held``: for the key of the file."""
    if told := doubt(certificate):
        yield told
    issuer = missing_issuer(certificate, chain)
    if issuer is not None:
        yield (
            f"The card does not hold the certificate of the issuer {issuer.rfc4514_string()}: the chain stays "
            "incomplete, and whoever checks it needs that one from elsewhere."
        )
    if held is None:
        return
    after = held.holding(file.identifier, certificate)
    yield from (f"{problem.message} {problem.remedy}".strip() for problem in after.problems())
    yield from _passed_over(certificate, after, file, commands)
    elsewhere = [
        f"{each:04X}" for each, look in held.looks.items() if look == certificate and each != file.identifier
    ]
    if elsewhere:
        yield f"The certificate is already there in {file.application.name}/{elsewhere[0]}."


def _passed_over(
    certificate: x509.Certificate, after: KeyFiles, file: CertificateFile, commands: CardCommands
) -> Iterator[str]:
    """Whoever renews a certificate wants the key to be used with the new one."""
    first = next(iter(after.certificates()), None)
    if first in (None, certificate) or doubt(certificate):
        return
    if told := doubt(first, "certificate that the key goes on with"):
        place = next(each for each, look in after.looks.items() if look == first)
        name = f"{file.application.name}/{place:04X}"
        yield f"{told} To use the new one, erase the old: {commands.erasing(name)}."
