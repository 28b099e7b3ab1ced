"""What kinds of cards there are, as values: what a personality's file says (see the README beside those files).

A specification that does not fit together is a ``ValueError``.
"""

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from demail_hw.identity import KeyRole, PrivateKey
from demail_hw.tcos.layout import ControlReferenceTemplate
from demail_hw_simulators.card.access import LOCAL_REFERENCE
from demail_hw_simulators.card.dialect import Dialect
from demail_hw_simulators.card.key_names import KeyPlace
from demail_hw_simulators.card.pins import MINIMUM_LENGTH

__all__ = [
    "ApplicationSpec",
    "CertificateForm",
    "CertificateSpec",
    "FileSpec",
    "InitialPukSpec",
    "KeyAlgorithm",
    "KeySpec",
    "OperationTime",
    "Personality",
    "PinSpec",
    "TimingSpec",
    "algorithm_of",
    "require_iccsn",
]

_MOST_TRIES: Final = 15
"""What fits into 63Cx."""
_ICCSN_DIGITS: Final = 20
_NO_UNBLOCKER: Final = "is unblocked or set by a PIN that there is not"


class KeyAlgorithm(enum.Enum):
    """Kinds of key pairs, by type and size or by cryptography's name of the curve."""

    RSA_1024 = "rsa-1024"
    RSA_2048 = "rsa-2048"
    EC_SECP256R1 = "ec-secp256r1"
    EC_BRAINPOOLP256R1 = "ec-brainpoolP256r1"


_RSA: Final = frozenset({KeyAlgorithm.RSA_1024, KeyAlgorithm.RSA_2048})


def algorithm_of(key: PrivateKey) -> KeyAlgorithm:
    """The kind of a key. ``ValueError`` if no card here has such keys."""
    name = f"ec-{key.curve.name}" if isinstance(key, ec.EllipticCurvePrivateKey) else f"rsa-{key.key_size}"
    try:
        return KeyAlgorithm(name)
    except ValueError:
        known = ", ".join(each.value for each in KeyAlgorithm)
        raise ValueError(f"no card has keys of the kind {name}; known: {known}") from None


class CertificateForm(enum.Enum):
    """How a certificate lies in its EF. ``CONTAINER``: in a SEQUENCE behind OID userCertificate (2.5.4.36)."""

    CONTAINER = "container"
    BARE = "bare"


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateSpec:
    """What certificate EFs are like. Sizes in bytes; ``user_file_size``: of those that are empty."""

    form: CertificateForm
    file_size: int
    user_file_size: int


@dataclasses.dataclass(frozen=True, slots=True)
class PinSpec:
    """One PIN. ``value``: ``None`` for a NullPIN. ``unblocked_by``: a reference, seen from the same DF.

    ``set_by``: the PINs of which any one, once it is verified, allows a new value or all tries; ``None``: the one
    that unblocks it. ``file``: identifier of the EF that holds it, where PINs have one.
    """

    reference: int
    value: bytes | None = dataclasses.field(repr=False)
    unblocked_by: int | None
    minimum: int = 6
    tries: int = 3
    maximum_tries: int = 3
    set_by: tuple[int, ...] | None = None
    file: int | None = None

    @property
    def setters(self) -> tuple[int, ...]:
        """References of the PINs that may set it."""
        if self.set_by is not None:
            return self.set_by
        return () if self.unblocked_by is None else (self.unblocked_by,)

    def __post_init__(self) -> None:
        if not 0 <= self.tries <= self.maximum_tries <= _MOST_TRIES:
            raise ValueError(f"tries are from 0 to maximum_tries, and these at most {_MOST_TRIES}")
        if self.minimum < MINIMUM_LENGTH:
            raise ValueError(f"the minimum of a PIN is {MINIMUM_LENGTH} or more: the card takes no shorter one")
        if self.value is not None and len(self.value) < self.minimum:
            raise ValueError("the value is shorter than the minimum")


@dataclasses.dataclass(frozen=True, slots=True)
class KeySpec:
    """One key. ``certificate``, ``public_key`` and ``private_key``: identifiers of its EFs, where it has them;
    ``test_key``: file in ``test_keys``."""

    reference: int
    algorithm: KeyAlgorithm
    templates: tuple[ControlReferenceTemplate, ...]
    role: KeyRole
    test_key: str
    certificate: int | None = None
    public_key: int | None = None
    private_key: int | None = None

    def __post_init__(self) -> None:
        if not self.templates:
            raise ValueError("a key needs a template")
        if self.public_key is not None and self.algorithm not in _RSA:
            raise ValueError("a public_key file holds an RSA key")

    @property
    def files(self) -> tuple[int, ...]:
        """Identifiers of its EFs."""
        return tuple(each for each in (self.certificate, self.public_key, self.private_key) if each is not None)


@dataclasses.dataclass(frozen=True, slots=True)
class FileSpec:
    """A transparent EF that anybody reads and nobody writes."""

    identifier: int
    content: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class InitialPukSpec:
    """An EF of the MF with the PUK that the card was made with, encrypted for a key of the first DF.

    ``key``: its reference.
    """

    identifier: int
    key: int
    value: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """One DF. ``label``: what the personality's file calls it; ``name``: its AID.

    ``opened_by``: the PINs of which any one opens its keys; ``once``: for one use.
    ``empty``: EFs full of FF, which nobody writes; ``user_certificates``: the same, and whoever opens the keys does.
    ``writable``: so are the certificate files of the keys.
    ``password_descriptions``, ``key_descriptions``: EF.PWDD and EF.KEYD, if it has them; ``description``: further
    data objects of the first record of EF.KEYD.
    """

    label: str
    identifier: int
    name: bytes
    pins: tuple[PinSpec, ...]
    keys: tuple[KeySpec, ...]
    opened_by: tuple[int, ...]
    ca_certificate: int | None = None
    root_certificate: int | None = None
    user_certificates: tuple[int, ...] = ()
    writable: bool = False
    empty: tuple[int, ...] = ()
    files: tuple[FileSpec, ...] = ()
    password_descriptions: int | None = None
    key_descriptions: int | None = None
    description: bytes = b""
    once: bool = False

    def __post_init__(self) -> None:
        _require_different("PIN", (pin.reference for pin in self.pins))
        _require_different("key", (key.reference for key in self.keys))
        _require_different("file", self._identifiers())
        _require_unblockers(self.pins, local=True)
        if self.description and not (self.keys and self.key_descriptions):
            raise ValueError("a description needs key_descriptions and a key")

    def _identifiers(self) -> Iterator[int]:
        for key in self.keys:
            yield from key.files
        yield from _pin_files(self.pins)
        yield from (*self.user_certificates, *self.empty, *(file.identifier for file in self.files))
        optional = (self.ca_certificate, self.root_certificate, self.password_descriptions, self.key_descriptions)
        yield from (identifier for identifier in optional if identifier is not None)


@dataclasses.dataclass(frozen=True, slots=True)
class OperationTime:
    """How long a private key takes, in seconds. ``answer``: length of what comes out, in bytes."""

    answer: int
    mean: float


@dataclasses.dataclass(frozen=True, slots=True)
class TimingSpec:
    """How long a card takes, in seconds (:mod:`demail_hw_simulators.card.timing`).

    ``commands``: by instruction byte; ``other``: any that is not there. ``spread``: standard deviation, as a share
    of the time.
    """

    commands: Mapping[int, float]
    other: float
    operations: tuple[OperationTime, ...]
    spread: float

    def __post_init__(self) -> None:
        _require_different("answer", (operation.answer for operation in self.operations))


@dataclasses.dataclass(frozen=True, slots=True)
class Personality:
    """A kind of card. ``information``: its answer to GET CARD INFO, empty if it refuses; ``iccsn``: 20 digits.

    ``pins``, ``password_descriptions`` and ``files``: those of the MF; ``global_data``: EF.GDO. ``timing``: ``None``
    if nobody knows.
    """

    title: str
    atr: bytes
    dialect: Dialect
    iccsn: str
    pins: tuple[PinSpec, ...]
    applications: tuple[ApplicationSpec, ...]
    certificates: CertificateSpec
    global_data: int
    information: bytes = b""
    password_descriptions: int | None = None
    initial_puk: InitialPukSpec | None = None
    files: tuple[FileSpec, ...] = ()
    timing: TimingSpec | None = None

    def __post_init__(self) -> None:
        require_iccsn(self.iccsn)
        _require_different("PIN", (pin.reference for pin in self.pins))
        _require_different("file", self._identifiers())
        _require_different("AID", (each.name for each in self.applications if each.name))
        _require_unblockers(self.pins, local=False)
        self._require_room(self.pins, "the MF")
        for application in self.applications:
            self._require_openers(application)
            self._require_global_unblockers(application)
            self._require_room(application.pins, _name(application))
        self._require_key_of_initial_puk()

    def keys(self) -> dict[KeyPlace, KeySpec]:
        """All keys, application by application."""
        return {
            KeyPlace(application.label, key.reference): key
            for application in self.applications
            for key in application.keys
        }

    def _identifiers(self) -> Iterator[int]:
        yield self.global_data
        if self.password_descriptions is not None:
            yield self.password_descriptions
        yield from (application.identifier for application in self.applications)
        yield from (file.identifier for file in self.files)
        yield from _pin_files(self.pins)
        if self.initial_puk is not None:
            yield self.initial_puk.identifier

    def _require_key_of_initial_puk(self) -> None:
        if self.initial_puk is None:
            return
        keys = {key.reference: key for key in self.applications[0].keys} if self.applications else {}
        key = keys.get(self.initial_puk.key)
        if key is None or key.algorithm not in _RSA:
            raise ValueError("the initial_puk needs an RSA key of the first application")
        if len(self.initial_puk.value) > self.dialect.longest_pin:
            raise ValueError("the value of the initial_puk is longer than the longest_pin of the dialect")

    def _require_openers(self, application: ApplicationSpec) -> None:
        known = {pin.reference for pin in (*self.pins, *application.pins)}
        if not known.issuperset(application.opened_by):
            raise ValueError(f"{_name(application)} is opened by a PIN that there is not")

    def _require_global_unblockers(self, application: ApplicationSpec) -> None:
        known = {pin.reference for pin in self.pins}
        for pin in application.pins:
            if not known.issuperset(_same_place(_unblockers(pin), local=False)):
                raise ValueError(f"PIN {pin.reference:02X} of {_name(application)} {_NO_UNBLOCKER}")

    def _require_room(self, pins: tuple[PinSpec, ...], where: str) -> None:
        """What the card can never take is no PIN."""
        longest = self.dialect.longest_pin
        for pin in pins:
            if max(pin.minimum, len(pin.value or b"")) > longest:
                raise ValueError(f"PIN {pin.reference:02X} of {where} is longer than the longest_pin of the dialect")


def _name(application: ApplicationSpec) -> str:
    return f"DF {application.identifier:04X}"


def require_iccsn(iccsn: str) -> None:
    """``ValueError`` unless it has 20 digits."""
    if len(iccsn) != _ICCSN_DIGITS or not (iccsn.isascii() and iccsn.isdigit()):
        raise ValueError(f"an ICCSN has {_ICCSN_DIGITS} digits")


def _require_different(what: str, values: Iterable[object]) -> None:
    seen = list(values)
    if len(set(seen)) < len(seen):
        raise ValueError(f"the same {what} is there twice")


def _pin_files(pins: tuple[PinSpec, ...]) -> Iterator[int]:
    return (pin.file for pin in pins if pin.file is not None)


def _require_unblockers(pins: tuple[PinSpec, ...], *, local: bool) -> None:
    """A PIN is of the DF that its reference says, and so is the one that unblocks it."""
    known = {pin.reference for pin in pins}
    for pin in pins:
        if bool(pin.reference & LOCAL_REFERENCE) is not local:
            raise ValueError("PIN references are below 0x80 in the MF, and in a DF from 0x80 on")
        # A DF knows the PINs of the MF too, and there they are looked for later; the MF knows no others.
        wanted = _same_place(_unblockers(pin), local=True) if local else set(_unblockers(pin))
        if not known.issuperset(wanted):
            raise ValueError(f"PIN {pin.reference:02X} {_NO_UNBLOCKER}")


def _unblockers(pin: PinSpec) -> tuple[int, ...]:
    return pin.setters if pin.unblocked_by is None else (pin.unblocked_by, *pin.setters)


def _same_place(references: tuple[int, ...], *, local: bool) -> set[int]:
    return {reference for reference in references if bool(reference & LOCAL_REFERENCE) is local}
