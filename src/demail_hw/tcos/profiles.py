"""What each TCOS card has where: applications, keys, PINs and certificate files, as data.

Sources: the tables of OpenSC (pkcs15-tcos) and GnuPG (app-nks), which agree, and DIN 66291-4 for file names.
"""

import dataclasses
import enum
from typing import Final

from demail_hw.errors import UnknownCard
from demail_hw.identity import KeyRole

__all__ = [
    "NETKEY3",
    "PROFILES",
    "Application",
    "KeyOperation",
    "KeySlot",
    "PinName",
    "PinSlot",
    "Profile",
    "profile_for",
]


class Application(enum.Enum):
    """An application of the card, by its AID (ISO 7816-4, 12.2.3); the value is what SELECT sends."""

    NKS = bytes.fromhex("D2760000030102")
    SIGG = bytes.fromhex("D27600006601")


class KeyOperation(enum.Enum):
    """What the card does with a private key."""

    COMPUTE_DIGITAL_SIGNATURE = "PSO CDS: the card pads a DigestInfo"
    DECIPHER = "PSO DECIPHER: the raw RSA operation, the host pads"


class PinName(enum.Enum):
    """The PINs of a NetKey card, as the command line calls them."""

    GLOBAL = "global"
    NKS_1 = "nks-1"
    NKS_2 = "nks-2"
    SIGG_1 = "sigg-1"
    SIGG_2 = "sigg-2"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PinSlot:
    """A PIN. ``reference``: P2 of VERIFY; with bit 0x80 it is local to ``application``, else global in the MF.

    ``opens``: the applications whose keys it opens.
    """

    name: PinName
    reference: int
    application: Application | None
    opens: frozenset[Application]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class KeySlot:
    """A private key and where its public parts lie.

    ``reference``: DO 84 of MANAGE SECURITY ENVIRONMENT. ``public_key_file``: EF.PK. ``certificate_files``: where
    its certificate may be, the likeliest first. ``decrypts``: whether it is meant for decryption too.
    """

    reference: int
    role: KeyRole
    label: str
    application: Application
    operation: KeyOperation
    public_key_file: int
    certificate_files: tuple[int, ...]
    decrypts: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """A kind of card. ``chain_files``: where the certificates of its issuers may be."""

    name: str
    atrs: frozenset[bytes]
    keys: tuple[KeySlot, ...]
    pins: tuple[PinSlot, ...]
    chain_files: tuple[tuple[Application, int], ...]

    def pin(self, name: PinName) -> PinSlot:
        """The PIN of this name. ``KeyError`` if the card has none."""
        return {slot.name: slot for slot in self.pins}[name]

    def keys_opened_by(self, pin: PinSlot) -> tuple[KeySlot, ...]:
        """The keys that a PIN opens."""
        return tuple(key for key in self.keys if key.application in pin.opens)


_NKS_KEYS = (
    KeySlot(
        reference=0x80,
        role=KeyRole.SIGNATURE,
        label="NetKey signature key",
        application=Application.NKS,
        operation=KeyOperation.COMPUTE_DIGITAL_SIGNATURE,
        public_key_file=0x4531,
        certificate_files=(0xC000, 0x4331, 0x4332),
    ),
    KeySlot(
        reference=0x81,
        role=KeyRole.ENCRYPTION,
        label="NetKey encryption key",
        application=Application.NKS,
        operation=KeyOperation.DECIPHER,
        public_key_file=0x45B1,
        certificate_files=(0xC200, 0x43B1, 0x43B2),
        decrypts=True,
    ),
    KeySlot(
        reference=0x82,
        role=KeyRole.AUTHENTICATION,
        label="NetKey authentication key",
        application=Application.NKS,
        operation=KeyOperation.DECIPHER,
        public_key_file=0x4571,
        certificate_files=(0xC500, 0x4371, 0x4372),
    ),
)
_SIGG_KEY = KeySlot(
    reference=0x84,
    role=KeyRole.SIGNATURE,
    label="SigG signature key",
    application=Application.SIGG,
    operation=KeyOperation.COMPUTE_DIGITAL_SIGNATURE,
    public_key_file=0x4531,
    certificate_files=(0xC000,),
)

NETKEY3: Final = Profile(
    name="TCOS 3 NetKey",
    atrs=frozenset(
        {
            bytes.fromhex("3BBF96008131FE5D00640411030131C073F701D00090007D"),
            bytes.fromhex("3BBF96008131FE5D00640411040F31C073F701D000900074"),
            bytes.fromhex("3BBFB6008131FE5D00640428030231C073F701D000900067"),
        }
    ),
    keys=(*_NKS_KEYS, _SIGG_KEY),
    pins=(
        PinSlot(PinName.GLOBAL, 0x00, None, frozenset({Application.NKS})),
        PinSlot(PinName.NKS_1, 0x81, Application.NKS, frozenset({Application.NKS})),
        PinSlot(PinName.NKS_2, 0x83, Application.NKS, frozenset({Application.NKS})),
        PinSlot(PinName.SIGG_1, 0x81, Application.SIGG, frozenset({Application.SIGG})),
        PinSlot(PinName.SIGG_2, 0x83, Application.SIGG, frozenset({Application.SIGG})),
    ),
    chain_files=((Application.NKS, 0xC008), (Application.SIGG, 0xC008), (Application.SIGG, 0xC00E)),
)

PROFILES: Final = (NETKEY3,)


def profile_for(atr: bytes) -> Profile:
    """The profile of the card with this ATR. :class:`~demail_hw.errors.UnknownCard` if there is none."""
    for profile in PROFILES:
        if atr in profile.atrs:
            return profile
    raise UnknownCard(
        f"No profile knows a card with the ATR {atr.hex().upper()}.",
        remedy="Check that it is a TCOS 3 NetKey card; other cards need a profile of their own.",
    )
