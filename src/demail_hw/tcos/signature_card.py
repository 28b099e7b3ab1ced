"""TeleSec Signature Card V2: TCOS 3 with elliptic curves.

Sources: newer GnuPG (app-nks, "version 15") for applications, key files, PINs and the form of MSE, and an ATR list.
No card was seen, and nothing of it is in OpenSC. Assumed: that all three keys sign with the template B6, and take a
digest that was cut to the length of the order.
"""

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
    SecurityEnvironment,
)
from demail_hw.tcos.netkey import NKS

__all__ = ["SIGNATURE_CARD_V2"]

_ESIGN: Final = Application.by_aid("ESIGN", "A000000167455349474E")
_CURVES: Final = frozenset({"secp256r1", "brainpoolP256r1"})

_ECDSA: Final = KeyAccess(KeyOperation.COMPUTE_ECDSA, SecurityEnvironment(ControlReferenceTemplate.DIGITAL_SIGNATURE))


def _key(reference: int, role: KeyRole, certificate_files: tuple[int, ...]) -> KeySlot:
    return KeySlot(
        reference=reference,
        role=role,
        label=f"Signature Card {role.value} key",
        application=NKS,
        access=_ECDSA,
        public_key_file=None,
        certificate_files=certificate_files,
        curves=_CURVES,
    )


SIGNATURE_CARD_V2: Final = Profile(
    name="TeleSec Signature Card V2",
    atrs=("3B9F968131FE9D006405A0030431C073F701D000900028",),
    main=NKS,
    keys=(
        _key(0x80, KeyRole.SIGNATURE, (0x4331, 0x4332, 0xC000)),
        _key(0x81, KeyRole.ENCRYPTION, (0x43B1, 0x43B2, 0xC200)),
        _key(0x82, KeyRole.AUTHENTICATION, (0x4371, 0x4372, 0xC500)),
    ),
    pins=(
        PinSlot(PinName.GLOBAL, 0x03, NKS, frozenset({NKS}), PinName.PUK, range(6, 25)),
        PinSlot(PinName.PUK, 0x04, NKS, frozenset(), PinName.GLOBAL, range(8, 25)),
        PinSlot(PinName.SIGG_1, 0x81, _ESIGN, frozenset(), PinName.SIGG_2, range(6, 25)),
        PinSlot(PinName.SIGG_2, 0x82, _ESIGN, frozenset(), PinName.SIGG_1, range(8, 25)),
    ),
    chain_files=((NKS, 0xC208), (NKS, 0xC20E)),
    null_pin=b"00000",
    # It is delivered without C000, C200 and C500: the holder fetches the three certificates and writes them (GnuPG).
    writable_certificates=frozenset(
        {0xC000, 0xC200, 0xC500, 0x4331, 0x4332, 0x43B1, 0x43B2, 0x4371, 0x4372},
    ),
    further_certificates=(
        CertificateFile(NKS, 0xC201, CertificateKind.CARD, writable=True),
        CertificateFile(NKS, 0xC108, CertificateKind.CA),
        CertificateFile(NKS, 0xC10E, CertificateKind.CA),
        CertificateFile(NKS, 0xB000, CertificateKind.CA),
        CertificateFile(_ESIGN, 0xC001, CertificateKind.CARD),
        CertificateFile(_ESIGN, 0xC000, CertificateKind.CA),
        CertificateFile(_ESIGN, 0xC00E, CertificateKind.CA),
    ),
)
