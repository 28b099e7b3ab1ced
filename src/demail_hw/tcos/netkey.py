"""TeleSec NetKey cards: of TCOS 3 with RSA-2048, and of TCOS 2 with RSA-1024.

Sources: the tables of OpenSC (pkcs15-tcos) and GnuPG (app-nks), which agree, and DIN 66291-4 for file names.
"""

import dataclasses
from typing import Final

from demail_hw.identity import KeyRole
from demail_hw.tcos.layout import (
    Application,
    CertificateFile,
    CertificateKind,
    ControlReferenceTemplate,
    KeyAccess,
    KeyOperation,
    KeySlot,
    PinName,
    PinSlot,
    Profile,
    PublicKeyFile,
    SecurityEnvironment,
)
from demail_hw.tcos.public_key_file import RecordForm

__all__ = ["NETKEY2", "NETKEY3", "NKS", "SIGG", "TCOS3_ATRS", "TCOS3_RAW_RSA"]

NKS: Final = Application.by_aid("NKS", "D2760000030102")
SIGG: Final = Application.by_aid("SIGG", "D27600006601")

TCOS3_ATRS: Final = (
    # Those in public ATR lists: any chip, version 3 of the system, any release.
    "3BBF??008131FE5D0064????03??31C073F701D0009000??",
    "3BBF96008131FE5D00640411040F31C073F701D000900074",
)
"""Of TCOS 3 on its chips. They tell the system; what the card is for is told by its applications."""

_TCOS2_ATRS: Final = (
    "3BBA13008131865D0064050A0201318090008B",
    "3BBA14008131865D0064051402023180900091",
    "3BBA96008131865D0064056002033180900066",
    "3BBA96008131865D0064057B0203318090007D",
)

# --- TCOS 3

_TCOS3_PADS: Final = KeyAccess(
    KeyOperation.COMPUTE_DIGITAL_SIGNATURE,
    # Algorithm 02: PKCS#1 v1.5, and no look at the ASN.1.
    SecurityEnvironment(ControlReferenceTemplate.DIGITAL_SIGNATURE, algorithm=0x02),
)
TCOS3_RAW_RSA: Final = KeyAccess(
    KeyOperation.DECIPHER,
    # IDKey cards refuse the DO of the algorithm, and without it every TCOS 3 card works raw.
    SecurityEnvironment(ControlReferenceTemplate.CONFIDENTIALITY),
    padding_indicator=b"\x00",
)


_NKS_ONLY: Final = frozenset({NKS})
_SIGG_ONLY: Final = frozenset({SIGG})
_NOTHING: Final[frozenset[Application]] = frozenset()
_PUK_LENGTHS: Final = range(8, 17)

_CHAIN_FILES: Final = ((NKS, 0xC008), (SIGG, 0xC008), (SIGG, 0xC00E))
_USER_CERTIFICATES: Final = frozenset({0x4331, 0x4332, 0x43B1, 0x43B2, 0x4371, 0x4372})
"""OpenSC calls them writable, and netkey-tool writes them."""
_ROOT: Final = CertificateFile(NKS, 0xB000, CertificateKind.CA)
"""DIN 66291 has the root's public key there; GnuPG asks it for a certificate."""


@dataclasses.dataclass(frozen=True, slots=True)
class _System:
    """In what the NetKey cards of two operating systems differ.

    ``pads``, ``raw``: how a key is used that signs a DigestInfo, and one that gives the raw operation. ``records``:
    of EF.PK. ``authentication_certificate``: identifier of its EF. ``sigg_reference``: of the SigG key. ``remark``:
    what the labels say of the keys.
    """

    pads: KeyAccess
    raw: KeyAccess
    records: RecordForm
    authentication_certificate: int
    sigg_reference: int
    remark: str = ""

    def keys(self) -> tuple[KeySlot, ...]:
        """Three in NKS, one in SigG."""
        return (
            self._key(NKS, 0x80, KeyRole.SIGNATURE, self.pads, 0x4531, (0x4331, 0x4332, 0xC000)),
            self._key(NKS, 0x81, KeyRole.ENCRYPTION, self.raw, 0x45B1, (0x43B1, 0x43B2, 0xC200)),
            self._key(
                NKS, 0x82, KeyRole.AUTHENTICATION, self.raw, 0x4571, (0x4371, 0x4372, self.authentication_certificate)
            ),
            self._key(SIGG, self.sigg_reference, KeyRole.SIGNATURE, self.pads, 0x4531, (0xC000,)),
        )

    def _key(
        self,
        application: Application,
        reference: int,
        role: KeyRole,
        access: KeyAccess,
        public_key_file: int,
        certificate_files: tuple[int, ...],
    ) -> KeySlot:
        return KeySlot(
            reference=reference,
            role=role,
            label=f"{_LABELS[application]} {role.value} key{self.remark}",
            application=application,
            access=access,
            public_key_file=PublicKeyFile(public_key_file, self.records),
            certificate_files=certificate_files,
            decrypts=role is KeyRole.ENCRYPTION,
            once=application is SIGG,  # where a card does not hold to it, the question for the tries left says so
        )


_LABELS: Final = {NKS: "NetKey", SIGG: "SigG"}

NETKEY3: Final = Profile(
    name="TCOS 3 NetKey",
    atrs=TCOS3_ATRS,
    main=NKS,
    keys=_System(_TCOS3_PADS, TCOS3_RAW_RSA, RecordForm.PLAIN, 0xC500, 0x84).keys(),
    pins=(
        PinSlot(PinName.GLOBAL, 0x00, None, _NKS_ONLY, PinName.PUK),
        PinSlot(PinName.PUK, 0x01, None, _NOTHING, PinName.GLOBAL, _PUK_LENGTHS),
        PinSlot(PinName.NKS_1, 0x81, NKS, _NKS_ONLY, PinName.GLOBAL),
        PinSlot(PinName.NKS_2, 0x83, NKS, _NKS_ONLY, PinName.GLOBAL),
        PinSlot(PinName.SIGG_1, 0x81, SIGG, _SIGG_ONLY, PinName.SIGG_2),
        PinSlot(PinName.SIGG_2, 0x83, SIGG, _SIGG_ONLY, PinName.SIGG_1, _PUK_LENGTHS),
    ),
    chain_files=_CHAIN_FILES,
    writable_certificates=_USER_CERTIFICATES,
    # C201: of the fourth key, RSA-1024, which has no role here.
    further_certificates=(CertificateFile(NKS, 0xC201, CertificateKind.CARD), _ROOT),
)

# --- TCOS 2

_TCOS2_PADS: Final = KeyAccess(KeyOperation.COMPUTE_DIGITAL_SIGNATURE, environment=None)
_TCOS2_RAW_RSA: Final = KeyAccess(
    KeyOperation.DECIPHER,
    SecurityEnvironment(ControlReferenceTemplate.CONFIDENTIALITY, p1=0xC1),
    # 02 is raw; with 81 the card would remove the padding itself, and could be asked whether it is right.
    padding_indicator=b"\x02",
)

NETKEY2: Final = Profile(
    name="TCOS 2 NetKey",
    atrs=_TCOS2_ATRS,
    main=NKS,
    keys=_System(_TCOS2_PADS, _TCOS2_RAW_RSA, RecordForm.SIMPLE_TLV, 0xC100, 0x80, " (RSA-1024)").keys(),
    pins=(
        PinSlot(PinName.GLOBAL, 0x00, None, _NKS_ONLY, PinName.PUK),
        PinSlot(PinName.PUK, 0x01, None, _NOTHING, lengths=_PUK_LENGTHS),
        PinSlot(PinName.NKS_1, 0x81, NKS, _NKS_ONLY, PinName.GLOBAL),
        # PIN0, which is the second one's part in TCOS 3
        PinSlot(PinName.NKS_2, 0x80, NKS, _NKS_ONLY, PinName.NKS_1),
        PinSlot(PinName.SIGG_1, 0x81, SIGG, _SIGG_ONLY),
    ),
    chain_files=_CHAIN_FILES,
    writable_certificates=_USER_CERTIFICATES,
    further_certificates=(_ROOT,),
)
