"""The words in which a card is described: its applications, PINs and keys, and how each is used, as data.

What differs between two cards is a value here and never a branch in the code that sends the commands.
"""

import dataclasses
import enum
from fnmatch import fnmatchcase
from typing import Final

from demail_hw.identity import KeyRole
from demail_hw.tcos.public_key_file import RecordForm

__all__ = [
    "Application",
    "CertificateFile",
    "CertificateKind",
    "ControlReferenceTemplate",
    "KeyAccess",
    "KeyOperation",
    "KeySlot",
    "PinName",
    "PinSlot",
    "Profile",
    "PublicKeyFile",
    "SecurityEnvironment",
    "SelectionMethod",
    "StorageForm",
]


_USER_FILES: Final = 0x43


class SelectionMethod(enum.IntEnum):
    """P1 of SELECT: what its data field is (ISO 7816-4, 11.1.1)."""

    DF_NAME = 0x04
    PATH_FROM_MF = 0x08


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Application:
    """A DF that keys, PINs or certificates lie in; compared by identity.

    ``location``: what SELECT sends, an AID (ISO 7816-4, 12.2.3) or a path from the MF without the MF itself.
    """

    name: str
    method: SelectionMethod
    location: bytes

    @classmethod
    def by_aid(cls, name: str, aid: str) -> "Application":
        """The DF with this name, in hexadecimal."""
        return cls(name, SelectionMethod.DF_NAME, bytes.fromhex(aid))

    @classmethod
    def by_path(cls, name: str, path: str) -> "Application":
        """The DF at this path, in hexadecimal."""
        return cls(name, SelectionMethod.PATH_FROM_MF, bytes.fromhex(path))


class KeyOperation(enum.Enum):
    """What the card does with a private key."""

    COMPUTE_DIGITAL_SIGNATURE = "PSO CDS: the card pads a DigestInfo"
    DECIPHER = "PSO DECIPHER: the raw RSA operation, the host pads"
    COMPUTE_ECDSA = "PSO CDS: the card makes r and s of a digest"


class ControlReferenceTemplate(enum.IntEnum):
    """P2 of MANAGE SECURITY ENVIRONMENT: what the key is set for (ISO 7816-4, 10.3.2)."""

    DIGITAL_SIGNATURE = 0xB6
    CONFIDENTIALITY = 0xB8


@dataclasses.dataclass(frozen=True, slots=True)
class SecurityEnvironment:
    """What MANAGE SECURITY ENVIRONMENT SET says beside the key's reference (ISO 7816-4, 11.5.11).

    ``algorithm``: the value of DO 80, None to leave it out. ``p1``: for which operations it is set.
    """

    template: ControlReferenceTemplate
    algorithm: int | None = None
    p1: int = 0x41


@dataclasses.dataclass(frozen=True, slots=True)
class KeyAccess:
    """How a card wants a key to be used.

    ``environment``: None if the key is used as selecting the application leaves it. ``padding_indicator``: the byte
    that makes DECIPHER the raw operation (ISO 7816-8, table 11).
    """

    operation: KeyOperation
    environment: SecurityEnvironment | None
    padding_indicator: bytes = b""


class PinName(enum.Enum):
    """The PINs of a card, as the command line calls them."""

    GLOBAL = "global"
    PUK = "puk"
    NKS_1 = "nks-1"
    NKS_2 = "nks-2"
    SIGG_1 = "sigg-1"
    SIGG_2 = "sigg-2"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PinSlot:
    """A PIN. ``reference``: P2 of VERIFY; it counts in ``application``, or everywhere if that is None.

    ``opens``: the applications whose keys it opens. ``unblocked_by``: the PIN that sets it anew when it is blocked.
    ``lengths``: those that it can have, in characters.
    """

    name: PinName
    reference: int
    application: Application | None
    opens: frozenset[Application]
    unblocked_by: PinName | None = None
    lengths: range = range(6, 17)


@dataclasses.dataclass(frozen=True, slots=True)
class PublicKeyFile:
    """An EF.PK: its identifier, and how a number is written in its records."""

    identifier: int
    form: RecordForm


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class KeySlot:
    """A private key and where its public parts lie.

    ``reference``: DO 84 of MANAGE SECURITY ENVIRONMENT. ``public_key_file``: None where only the certificate tells.
    ``certificate_files``: where its certificates may be; one that was imported goes before the card's own.
    ``decrypts``: whether it is meant for decryption too. ``curves``: those that an EC key can be on, by the names of
    cryptography. ``once``: whether a signature uses up the PINs that open it.
    """

    reference: int
    role: KeyRole
    label: str
    application: Application
    access: KeyAccess
    public_key_file: PublicKeyFile | None
    certificate_files: tuple[int, ...]
    decrypts: bool = False
    curves: frozenset[str] = frozenset()
    once: bool = False

    @property
    def operation(self) -> KeyOperation:
        """What the card does with it."""
        return self.access.operation


class CertificateKind(enum.Enum):
    """Whose a certificate is."""

    CARD = "card certificate"
    USER = "user certificate"
    CA = "CA certificate"


class StorageForm(enum.Enum):
    """How an EF holds a certificate."""

    BARE = "bare"
    CONTAINER = "container"
    """userCertificate: ``SEQUENCE { OBJECT IDENTIFIER 2.5.4.36, Certificate }``"""


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateFile:
    """An EF in which a certificate can be. ``writable``: a PIN that opens the application's keys lets write it."""

    application: Application
    identifier: int
    kind: CertificateKind
    writable: bool = False

    @property
    def name(self) -> str:
        """For people: application and file identifier."""
        return f"{self.application.name}/{self.identifier:04X}"


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """A kind of card.

    ``atrs``: its ATRs in hexadecimal, where ``?`` is any digit. ``main``: the application that only this kind has
    among those with the same ATR. ``chain_files``: where the certificates of its issuers may be. ``null_pin``: what
    stands for a PIN that was never set. ``writable_certificates``: which of the keys' certificate files are for the
    user to write. ``further_certificates``: files that belong to no key here. ``certificate_form``: how a
    certificate is written where the card holds none to go by.
    """

    name: str
    atrs: tuple[str, ...]
    main: Application
    keys: tuple[KeySlot, ...]
    pins: tuple[PinSlot, ...]
    chain_files: tuple[tuple[Application, int], ...]
    null_pin: bytes = bytes(6)
    writable_certificates: frozenset[int] = frozenset()
    further_certificates: tuple[CertificateFile, ...] = ()
    certificate_form: StorageForm = StorageForm.CONTAINER

    def has_atr(self, atr: bytes) -> bool:
        """Whether a card with this ATR can be of this kind."""
        digits = atr.hex().upper()
        return any(fnmatchcase(digits, pattern) for pattern in self.atrs)

    def pin(self, name: PinName) -> PinSlot:
        """The PIN of this name. ``KeyError`` if the card has none."""
        return {slot.name: slot for slot in self.pins}[name]

    def keys_opened_by(self, pin: PinSlot) -> tuple[KeySlot, ...]:
        """The keys that a PIN opens."""
        return tuple(key for key in self.keys if key.application in pin.opens)

    def pins_that_open(self, application: Application) -> tuple[PinSlot, ...]:
        """The PINs that open the keys of an application, and so let one write its certificates (assumed)."""
        return tuple(pin for pin in self.pins if application in pin.opens)

    @property
    def certificate_files(self) -> tuple[CertificateFile, ...]:
        """Every EF in which a certificate can be: those of the keys, the issuers', the others."""
        of_keys = [
            CertificateFile(key.application, identifier, _kind(identifier), identifier in self.writable_certificates)
            for key in self.keys
            for identifier in key.certificate_files
        ]
        issuers = [CertificateFile(*place, CertificateKind.CA) for place in self.chain_files]
        return (*of_keys, *issuers, *self.further_certificates)

    def key_of(self, file: CertificateFile) -> KeySlot | None:
        """The key that a file is for."""
        places = ((key, key.application, key.certificate_files) for key in self.keys)
        return next((key for key, df, files in places if df is file.application and file.identifier in files), None)


def _kind(identifier: int) -> CertificateKind:
    """By the numbers that TCOS cards give the certificate files of a key: 43xx are the user's."""
    return CertificateKind.USER if identifier >> 8 == _USER_FILES else CertificateKind.CARD
