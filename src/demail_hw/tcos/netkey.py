"""TeleSec NetKey cards: of TCOS 3 with RSA-2048, and of TCOS 2 with RSA-1024.

Sources: the tables of OpenSC (pkcs15-tcos) and GnuPG (app-nks), which agree, and DIN 66291-4 for file names.
"""

from typing import Final

from demail_hw.identity import KeyRole
from demail_hw.tcos.layout import (
    Application,
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
    "3BBF96008131FE5D00640411030131C073F701D00090007D",
    "3BBF96008131FE5D00640411040F31C073F701D000900074",
    "3BBFB6008131FE5D00640428030231C073F701D000900067",
    # Others in public ATR lists: any chip, version 3 of the system, any release.
    "3BBF??008131FE5D0064????03??31C073F701D0009000??",
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


def _plain(identifier: int) -> PublicKeyFile:
    return PublicKeyFile(identifier, RecordForm.PLAIN)


_NKS_ONLY: Final = frozenset({NKS})
_SIGG_ONLY: Final = frozenset({SIGG})

NETKEY3: Final = Profile(
    name="TCOS 3 NetKey",
    atrs=TCOS3_ATRS,
    main=NKS,
    keys=(
        KeySlot(
            reference=0x80,
            role=KeyRole.SIGNATURE,
            label="NetKey signature key",
            application=NKS,
            access=_TCOS3_PADS,
            public_key_file=_plain(0x4531),
            certificate_files=(0xC000, 0x4331, 0x4332),
        ),
        KeySlot(
            reference=0x81,
            role=KeyRole.ENCRYPTION,
            label="NetKey encryption key",
            application=NKS,
            access=TCOS3_RAW_RSA,
            public_key_file=_plain(0x45B1),
            certificate_files=(0xC200, 0x43B1, 0x43B2),
            decrypts=True,
        ),
        KeySlot(
            reference=0x82,
            role=KeyRole.AUTHENTICATION,
            label="NetKey authentication key",
            application=NKS,
            access=TCOS3_RAW_RSA,
            public_key_file=_plain(0x4571),
            certificate_files=(0xC500, 0x4371, 0x4372),
        ),
        KeySlot(
            reference=0x84,
            role=KeyRole.SIGNATURE,
            label="SigG signature key",
            application=SIGG,
            access=_TCOS3_PADS,
            public_key_file=_plain(0x4531),
            certificate_files=(0xC000,),
        ),
    ),
    pins=(
        PinSlot(PinName.GLOBAL, 0x00, None, _NKS_ONLY),
        PinSlot(PinName.NKS_1, 0x81, NKS, _NKS_ONLY),
        PinSlot(PinName.NKS_2, 0x83, NKS, _NKS_ONLY),
        PinSlot(PinName.SIGG_1, 0x81, SIGG, _SIGG_ONLY),
        PinSlot(PinName.SIGG_2, 0x83, SIGG, _SIGG_ONLY),
    ),
    chain_files=((NKS, 0xC008), (SIGG, 0xC008), (SIGG, 0xC00E)),
)

# --- TCOS 2

_TCOS2_PADS: Final = KeyAccess(KeyOperation.COMPUTE_DIGITAL_SIGNATURE, environment=None)
_TCOS2_RAW_RSA: Final = KeyAccess(
    KeyOperation.DECIPHER,
    SecurityEnvironment(ControlReferenceTemplate.CONFIDENTIALITY, p1=0xC1),
    # 02 is raw; with 81 the card would remove the padding itself, and could be asked whether it is right.
    padding_indicator=b"\x02",
)


def _simple_tlv(identifier: int) -> PublicKeyFile:
    return PublicKeyFile(identifier, RecordForm.SIMPLE_TLV)


NETKEY2: Final = Profile(
    name="TCOS 2 NetKey",
    atrs=_TCOS2_ATRS,
    main=NKS,
    keys=(
        KeySlot(
            reference=0x80,
            role=KeyRole.SIGNATURE,
            label="NetKey signature key (RSA-1024)",
            application=NKS,
            access=_TCOS2_PADS,
            public_key_file=_simple_tlv(0x4531),
            certificate_files=(0xC000, 0x4331, 0x4332),
        ),
        KeySlot(
            reference=0x81,
            role=KeyRole.ENCRYPTION,
            label="NetKey encryption key (RSA-1024)",
            application=NKS,
            access=_TCOS2_RAW_RSA,
            public_key_file=_simple_tlv(0x45B1),
            certificate_files=(0xC200, 0x43B1, 0x43B2),
            decrypts=True,
        ),
        KeySlot(
            reference=0x82,
            role=KeyRole.AUTHENTICATION,
            label="NetKey authentication key (RSA-1024)",
            application=NKS,
            access=_TCOS2_RAW_RSA,
            public_key_file=_simple_tlv(0x4571),
            certificate_files=(0xC100, 0x4371, 0x4372),
        ),
        KeySlot(
            reference=0x80,
            role=KeyRole.SIGNATURE,
            label="SigG signature key (RSA-1024)",
            application=SIGG,
            access=_TCOS2_PADS,
            public_key_file=_simple_tlv(0x4531),
            certificate_files=(0xC000,),
        ),
    ),
    pins=(
        PinSlot(PinName.GLOBAL, 0x00, None, _NKS_ONLY),
        PinSlot(PinName.NKS_1, 0x81, NKS, _NKS_ONLY),
        PinSlot(PinName.NKS_2, 0x80, NKS, _NKS_ONLY),  # PIN0, which is the second one's part in TCOS 3
        PinSlot(PinName.SIGG_1, 0x81, SIGG, _SIGG_ONLY),
    ),
    chain_files=((NKS, 0xC008), (SIGG, 0xC008), (SIGG, 0xC00E)),
)
