"""TeleSec IDKey: TCOS 3 again, with its keys in two DFs of their own, and every key raw.

Source: the table of OpenSC (pkcs15-tcos) and the log of a real card in OpenSC's issue 1869.
"""

from typing import Final

from demail_hw.identity import KeyRole
from demail_hw.tcos.layout import Application, CertificateFile, CertificateKind, KeySlot, PinName, PinSlot, Profile
from demail_hw.tcos.netkey import TCOS3_ATRS, TCOS3_RAW_RSA

__all__ = ["IDKEY"]

_IDKEY: Final = Application.by_aid("IDKEY", "D2760000030C01")
_DF07: Final = Application.by_path("DF07", "DF07")
_DF08: Final = Application.by_path("DF08", "DF08")


def _key(reference: int, role: KeyRole, label: str, where: Application, certificate: int) -> KeySlot:
    return KeySlot(
        reference=reference,
        role=role,
        label=f"IDKey {label} key",
        application=where,
        access=TCOS3_RAW_RSA,
        public_key_file=None,
        certificate_files=(certificate,),
        decrypts=role is KeyRole.ENCRYPTION,
    )


IDKEY: Final = Profile(
    name="TCOS 3 IDKey",
    atrs=TCOS3_ATRS,
    main=_IDKEY,
    # The first three keys of DF07 and those of DF08 have certificates. Which role each plays is assumed: nothing
    # public tells, and a card's own certificate says what its key may be used for.
    keys=(
        _key(0x84, KeyRole.SIGNATURE, "signature", _DF07, 0x4331),
        _key(0x85, KeyRole.AUTHENTICATION, "authentication", _DF07, 0x4332),
        _key(0x81, KeyRole.ENCRYPTION, "encryption", _DF08, 0x4331),
    ),
    pins=(
        PinSlot(PinName.GLOBAL, 0x00, None, frozenset({_DF07, _DF08}), PinName.PUK, range(6, 25)),
        PinSlot(PinName.PUK, 0x01, None, frozenset(), PinName.GLOBAL, range(8, 25)),
    ),
    chain_files=(),
    # OpenSC calls all six writable; the last three belong to keys that have no role here.
    writable_certificates=frozenset({0x4331, 0x4332}),
    further_certificates=tuple(
        CertificateFile(application, identifier, CertificateKind.USER, writable=True)
        for application, identifier in ((_DF07, 0x4333), (_DF08, 0x4332), (_DF08, 0x4333))
    ),
)
