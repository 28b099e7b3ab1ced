"""The cards that can be simulated, as tables.

The file system is the one that OpenSC 0.23 and GnuPG 2.2.40 took for a NetKey 3 card; the PIN states of a card as it
is delivered are those in GnuPG's source (app-nks). Marked *assumed* is what no public text says of a real card.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from demail_hw.identity import KeyRole
from demail_hw.iso7816.tlv import Tlv
from demail_hw_simulators.ca import SimulatedCa, load_test_key, telesec_ca
from demail_hw_simulators.card.access import ALWAYS, READ_ONLY, FileRules, any_pin
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import (
    MASTER_FILE,
    DedicatedFile,
    FileSystem,
    PasswordDescriptionFile,
    RecordFile,
    TransparentFile,
    erased,
)
from demail_hw_simulators.card.keys import CardKey, ControlReferenceTemplate
from demail_hw_simulators.card.pins import CardPin

__all__ = [
    "NETKEY3",
    "NETKEY3_FRESH",
    "PERSONALITIES",
    "ApplicationSpec",
    "KeySpec",
    "Personality",
    "PinSpec",
    "build_card",
    "load_card_key",
    "netkey3",
    "netkey3_fresh",
    "open_card",
]

CERTIFICATE_FILE_SIZE: Final = 2048
"""Certificate EFs have one size and are filled up with FF."""

_EF_GDO: Final = 0x2F02
_EF_PWDD: Final = 0x5049
_EF_KEYD: Final = 0x5349
_ICCSN_TAG: Final = 0x5A
_ICCSN_DIGITS: Final = 20
_USER_CERTIFICATE: Final = bytes.fromhex("0603550424")
"""OID 2.5.4.36, in front of the certificate in its container."""
_SEQUENCE: Final = 0x30

_SIGNATURE: Final = ControlReferenceTemplate.DIGITAL_SIGNATURE
_CONFIDENTIALITY: Final = ControlReferenceTemplate.CONFIDENTIALITY


@dataclasses.dataclass(frozen=True, slots=True)
class PinSpec:
    """One PIN. ``value``: ``None`` for a NullPIN. ``unblocked_by``: a reference, seen from the same DF."""

    reference: int
    value: bytes | None = dataclasses.field(repr=False)
    unblocked_by: int
    minimum: int = 6
    tries: int = 3
    maximum_tries: int = 3


@dataclasses.dataclass(frozen=True, slots=True)
class KeySpec:
    """One key. ``certificate`` and ``public_key``: identifiers of its EFs; ``test_key``: file in ``test_keys``."""

    reference: int
    template: ControlReferenceTemplate
    role: KeyRole
    certificate: int
    public_key: int
    test_key: str


@dataclasses.dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """One DF with its AID. ``opened_by``: the PINs of which any one opens its keys. ``empty``: EFs full of FF, and
    whether their owner may write them. ``description``: further data objects of the first KEYD record."""

    identifier: int
    name: bytes
    pins: tuple[PinSpec, ...]
    keys: tuple[KeySpec, ...]
    opened_by: tuple[int, ...]
    ca_certificate: int
    root_certificate: int | None = None
    user_certificates: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    description: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True)
class Personality:
    """A kind of card. ``information``: its answer to GET CARD INFO; ``iccsn``: 20 digits."""

    atr: bytes
    information: bytes
    iccsn: str
    pins: tuple[PinSpec, ...]
    applications: tuple[ApplicationSpec, ...]


_NKS: Final = ApplicationSpec(
    identifier=0xDF02,
    name=bytes.fromhex("D2760000030102"),
    # The local PINs are random at production and are set with the global PIN.
    pins=(PinSpec(0x81, b"111111", unblocked_by=0x00), PinSpec(0x83, b"222222", unblocked_by=0x00)),
    keys=(
        KeySpec(0x80, _SIGNATURE, KeyRole.SIGNATURE, 0xC000, 0x4531, "nks-80"),
        KeySpec(0x81, _CONFIDENTIALITY, KeyRole.ENCRYPTION, 0xC200, 0x45B1, "nks-81"),
        KeySpec(0x82, _CONFIDENTIALITY, KeyRole.AUTHENTICATION, 0xC500, 0x4571, "nks-82"),
        KeySpec(0x83, _CONFIDENTIALITY, KeyRole.ENCRYPTION, 0xC201, 0x45B2, "nks-83"),
    ),
    opened_by=(0x00, 0x81, 0x83),
    # Assumed: the naming rule of DIN 66291 (C008: CA certificate), which the SigG application follows.
    ca_certificate=0xC008,
    user_certificates=(0x4331, 0x4332, 0x43B1, 0x43B2, 0x4371, 0x4372),
    empty=(0xB000,),
)

_SIGG: Final = ApplicationSpec(
    identifier=0xDF01,
    name=bytes.fromhex("D27600006601"),
    pins=(PinSpec(0x81, b"654321", unblocked_by=0x83), PinSpec(0x83, b"87654321", unblocked_by=0x81, minimum=8)),
    keys=(KeySpec(0x84, _SIGNATURE, KeyRole.SIGNATURE, 0xC000, 0x4531, "sigg-84"),),
    opened_by=(0x81, 0x83),
    ca_certificate=0xC008,
    root_certificate=0xC00E,
    # One signature for each time a PIN is given, says the card; GnuPG takes no other for this.
    description=bytes.fromhex("7A0C93020001A406830181830183"),
)

NETKEY3: Final = Personality(
    # Philips P5CT072 with TCOS 3.0.
    atr=bytes.fromhex("3BBF96008131FE5D00640411030131C073F701D00090007D"),
    information=bytes.fromhex("04111922216A20800303010101000000"),
    iccsn="89490173510080407136",
    pins=(
        PinSpec(0x00, b"123456", unblocked_by=0x01),
        PinSpec(0x01, b"12345678", unblocked_by=0x00, minimum=8),
    ),
    applications=(_NKS, _SIGG),
)
"""A TeleSec NetKey 3 card in use: global PIN and PUK, NKS and SigG applications, all certificates on it."""


def _with_pins(application: ApplicationSpec, *pins: PinSpec) -> ApplicationSpec:
    return dataclasses.replace(application, pins=pins)


NETKEY3_FRESH: Final = dataclasses.replace(
    NETKEY3,
    pins=(PinSpec(0x00, None, unblocked_by=0x01), dataclasses.replace(NETKEY3.pins[1], tries=0)),
    applications=(
        _NKS,
        _with_pins(_SIGG, PinSpec(0x81, None, unblocked_by=0x83), dataclasses.replace(_SIGG.pins[1], tries=0)),
    ),
)
"""The same card as it is delivered: the global PIN and the SigG PIN are NullPINs, their PUKs have no tries."""


def load_card_key(name: str) -> rsa.RSAPrivateKey:
    """A fixed key of the simulated cards: published, worthless by design."""
    return load_test_key(name, "demail_hw_simulators.card")


def build_card(
    personality: Personality,
    *,
    iccsn: str | None = None,
    keys: Mapping[int, rsa.RSAPrivateKey] | None = None,
    certificates: Mapping[int, x509.Certificate] | None = None,
) -> SimulatedTcosCard:
    """A card of this kind.

    ``iccsn``: another number. ``keys`` and ``certificates``: by key reference, in place of the test keys and of
    what the simulated CA issues for them. ``ValueError`` if the ICCSN has not 20 digits.
    """
    maker = _Maker(telesec_ca(), keys or {}, certificates or {})
    root = DedicatedFile(MASTER_FILE)
    root.add(*(maker.application(spec, root) for spec in personality.applications))
    root.add(TransparentFile(_EF_GDO, _global_data_objects(iccsn or personality.iccsn)))
    _add_pins(root, personality.pins)
    return SimulatedTcosCard(FileSystem(root), atr=personality.atr, information=personality.information)


def netkey3(
    *,
    iccsn: str | None = None,
    keys: Mapping[int, rsa.RSAPrivateKey] | None = None,
    certificates: Mapping[int, x509.Certificate] | None = None,
) -> SimulatedTcosCard:
    """A TeleSec NetKey 3 card in use; options as in :func:`build_card`."""
    return build_card(NETKEY3, iccsn=iccsn, keys=keys, certificates=certificates)


def netkey3_fresh() -> SimulatedTcosCard:
    """A TeleSec NetKey 3 card as it is delivered."""
    return build_card(NETKEY3_FRESH)


PERSONALITIES: Final[Mapping[str, Callable[[], SimulatedTcosCard]]] = MappingProxyType(
    {"netkey3": netkey3, "netkey3-fresh": netkey3_fresh, "telesec": netkey3}
)
"""By name; ``telesec`` is another word for ``netkey3``."""


def open_card(name: str) -> SimulatedTcosCard:
    """A new card by the name of its personality. ``ValueError`` if there is none of this name."""
    if name not in PERSONALITIES:
        raise ValueError(f"no personality {name!r}; known: {', '.join(PERSONALITIES)}")
    return PERSONALITIES[name]()


def _global_data_objects(iccsn: str) -> bytes:
    """EF.GDO: the ICCSN in BCD (ISO 7816-6)."""
    if len(iccsn) != _ICCSN_DIGITS or not (iccsn.isascii() and iccsn.isdigit()):
        raise ValueError(f"an ICCSN has {_ICCSN_DIGITS} digits")
    return Tlv(_ICCSN_TAG, bytes.fromhex(iccsn)).encode()


def _add_pins(directory: DedicatedFile, specs: tuple[PinSpec, ...]) -> None:
    for spec in specs:
        directory.pins[spec.reference] = CardPin(
            spec.reference,
            spec.value,
            tries=spec.tries,
            maximum_tries=spec.maximum_tries,
            unblocked_by=spec.unblocked_by,
            minimum=spec.minimum,
        )
    directory.add(PasswordDescriptionFile(_EF_PWDD, tuple(directory.pins.values())))


@dataclasses.dataclass(frozen=True, slots=True)
class _Maker:
    """Fills the applications of one card."""

    ca: SimulatedCa
    keys: Mapping[int, rsa.RSAPrivateKey]
    certificates: Mapping[int, x509.Certificate]

    def application(self, spec: ApplicationSpec, root: DedicatedFile) -> DedicatedFile:
        made = DedicatedFile(
            spec.identifier,
            name=spec.name,
            parent=root,
            # Assumed: whoever knows the global PIN may add files to an application.
            rules=FileRules(create=any_pin(0x00)),
            signature_key=next((key.reference for key in spec.keys if key.template is _SIGNATURE), None),
        )
        for key in spec.keys:
            made.keys[key.reference] = CardKey(
                key.reference, self._key(key), template=key.template, rule=any_pin(*spec.opened_by)
            )
        self._add_certificates(made, spec)
        made.add(*(_public_key(key.public_key, made.keys[key.reference]) for key in spec.keys))
        made.add(RecordFile(_EF_KEYD, _key_descriptions(spec)))
        _add_pins(made, spec.pins)
        return made

    def _key(self, spec: KeySpec) -> rsa.RSAPrivateKey:
        return self.keys.get(spec.reference) or load_card_key(spec.test_key)

    def _certificate(self, spec: KeySpec, key: CardKey) -> x509.Certificate:
        given = self.certificates.get(spec.reference)
        return given or self.ca.issue_card_certificate(spec.role, key.public_key)

    def _add_certificates(self, directory: DedicatedFile, spec: ApplicationSpec) -> None:
        for key in spec.keys:
            certificate = self._certificate(key, directory.keys[key.reference])
            directory.add(_certificate_file(key.certificate, certificate))
        directory.add(_certificate_file(spec.ca_certificate, self.ca.intermediate))
        if spec.root_certificate is not None:
            directory.add(_certificate_file(spec.root_certificate, self.ca.root))
        # Assumed: whoever may use the keys may store certificates for them.
        writable = FileRules(read=ALWAYS, update=any_pin(*spec.opened_by))
        directory.add(*(_empty_file(identifier, writable) for identifier in spec.user_certificates))
        directory.add(*(_empty_file(identifier, READ_ONLY) for identifier in spec.empty))


def _certificate_file(identifier: int, certificate: x509.Certificate) -> TransparentFile:
    """A certificate in its container (``30 LL, OID userCertificate, certificate``), filled up with FF."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    container = Tlv(_SEQUENCE, _USER_CERTIFICATE + der).encode()
    return TransparentFile(identifier, container.ljust(CERTIFICATE_FILE_SIZE, b"\xff"))


def _empty_file(identifier: int, rules: FileRules) -> TransparentFile:
    return TransparentFile(identifier, erased(CERTIFICATE_FILE_SIZE), rules)


def _public_key(identifier: int, key: CardKey) -> RecordFile:
    """EF.PK: modulus and public exponent, a record each."""
    numbers = key.public_key.public_numbers()
    exponent = numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big")
    return RecordFile(identifier, (numbers.n.to_bytes(key.modulus_length, "big"), exponent))


def _key_descriptions(spec: ApplicationSpec) -> tuple[bytes, ...]:
    """EF.KEYD: ``A0 03 83 01 reference``, then an empty template for what the key can do."""
    records = [bytes((0xA0, 3, 0x83, 1, key.reference, key.template, 0)) for key in spec.keys]
    records[0] += spec.description
    return tuple(records)
