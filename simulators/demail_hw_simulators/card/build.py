"""From the specification of a card to a simulated card: its files, PINs and keys, and certificates that fit."""

import dataclasses
import os
import random
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from demail_hw.identity import PrivateKey
from demail_hw.iso7816.tlv import Tlv
from demail_hw.tcos.layout import ControlReferenceTemplate
from demail_hw.tcos.public_key_file import RecordForm
from demail_hw_simulators.ca import SimulatedCa, load_any_test_key, telesec_ca
from demail_hw_simulators.card.access import ALWAYS, READ_ONLY, FileRules, any_pin
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.dialect import Dialect
from demail_hw_simulators.card.file_system import (
    MASTER_FILE,
    DedicatedFile,
    ElementaryFile,
    FileSystem,
    KeyFile,
    PasswordDescriptionFile,
    PinFile,
    RecordFile,
    TransparentFile,
    erased,
)
from demail_hw_simulators.card.key_names import KeyName, KeyPlace, places_of
from demail_hw_simulators.card.keys import CardKey, RsaCardKey, card_key
from demail_hw_simulators.card.personality import (
    ApplicationSpec,
    CertificateForm,
    FileSpec,
    InitialPukSpec,
    KeySpec,
    Personality,
    PinSpec,
    algorithm_of,
    require_iccsn,
)
from demail_hw_simulators.card.pins import CardPin

__all__ = ["build_card", "load_card_key"]

_T = TypeVar("_T")

_ICCSN_TAG: Final = 0x5A
_USER_CERTIFICATE: Final = bytes.fromhex("0603550424")
"""OID 2.5.4.36, in front of the certificate in its container."""
_SEQUENCE: Final = 0x30
_NUMBER_TAG: Final = 0x01
"""Of the SIMPLE-TLV object in a record of EF.PK."""


def load_card_key(name: str) -> PrivateKey:
    """A fixed key of the simulated cards: published, worthless by design."""
    return load_any_test_key(name, "demail_hw_simulators.card")


def build_card(
    personality: Personality,
    *,
    iccsn: str | None = None,
    keys: Mapping[KeyName, PrivateKey] | None = None,
    certificates: Mapping[KeyName, x509.Certificate] | None = None,
    seed: int | None = None,
) -> SimulatedTcosCard:
    """A card of this kind.

    ``iccsn``: another number. ``keys`` and ``certificates``: by name, in place of the test keys and of what the
    simulated CA issues for them. ``seed``: its random numbers are always the same, and ECDSA is deterministic
    (RFC 6979). ``ValueError`` if the ICCSN has not 20 digits, if no key or several have a name, or if another kind
    of key belongs there.
    """
    number = personality.iccsn if iccsn is None else iccsn
    require_iccsn(number)
    maker = _Maker(
        personality,
        telesec_ca(),
        _require_kinds(personality, _by_place(personality, keys or {})),
        _by_place(personality, certificates or {}),
        deterministic=seed is not None,
    )
    root = DedicatedFile(MASTER_FILE)
    root.add(*(maker.application(spec, root) for spec in personality.applications))
    root.add(TransparentFile(personality.global_data, _global_data_objects(number)), *map(_file, personality.files))
    _add_pins(root, personality.pins, personality.password_descriptions, personality.dialect)
    if personality.initial_puk is not None:
        root.add(_initial_puk(personality, personality.initial_puk, root))
    return SimulatedTcosCard(
        FileSystem(root),
        atr=personality.atr,
        dialect=personality.dialect,
        information=personality.information,
        random=os.urandom if seed is None else random.Random(seed).randbytes,  # noqa: S311  the same on purpose
    )


def _by_place(personality: Personality, given: Mapping[KeyName, _T]) -> dict[KeyPlace, _T]:
    return {place: given[name] for name, place in places_of(given, personality.keys()).items()}


def _require_kinds(personality: Personality, keys: dict[KeyPlace, PrivateKey]) -> dict[KeyPlace, PrivateKey]:
    """Somebody's own keys, each of the kind that the card has there."""
    specs = personality.keys()
    for place, key in keys.items():
        if algorithm_of(key) is not specs[place].algorithm:
            raise ValueError(f"key {place.reference:02X} of this card is {specs[place].algorithm.value}")
    return keys


def _global_data_objects(iccsn: str) -> bytes:
    """EF.GDO: the ICCSN in BCD (ISO 7816-6)."""
    return Tlv(_ICCSN_TAG, bytes.fromhex(iccsn)).encode()


def _initial_puk(personality: Personality, spec: InitialPukSpec, root: DedicatedFile) -> TransparentFile:
    """The PUK at the end of a block that is encrypted (RFC 8017, 7.2.1), but always with the same padding."""
    directory = root.files[personality.applications[0].identifier]
    key = directory.keys[spec.key] if isinstance(directory, DedicatedFile) else None
    if not isinstance(key, RsaCardKey):
        raise TypeError("the initial PUK is encrypted for an RSA key")
    numbers = key.public_key.public_numbers()
    block = b"\x00\x02".ljust(key.modulus_length - 1 - len(spec.value), b"\xff") + b"\x00" + spec.value
    cryptogram = pow(int.from_bytes(block, "big"), numbers.e, numbers.n)
    return TransparentFile(spec.identifier, cryptogram.to_bytes(key.modulus_length, "big"))


def _add_pins(
    directory: DedicatedFile, specs: tuple[PinSpec, ...], descriptions: int | None, dialect: Dialect
) -> None:
    for spec in specs:
        pin = directory.pins[spec.reference] = CardPin(
            spec.reference,
            spec.value,
            tries=spec.tries,
            maximum_tries=spec.maximum_tries,
            unblocked_by=spec.unblocked_by,
            set_by=spec.setters,
            null_pin=dialect.null_pin,
            minimum=spec.minimum,
            maximum=dialect.longest_pin,
        )
        if spec.file is not None:
            directory.add(PinFile(spec.file, pin))
    if descriptions is not None:
        directory.add(PasswordDescriptionFile(descriptions, tuple(directory.pins.values())))


@dataclasses.dataclass(frozen=True, slots=True)
class _Maker:
    """Fills the applications of one card."""

    personality: Personality
    ca: SimulatedCa
    keys: Mapping[KeyPlace, PrivateKey]
    certificates: Mapping[KeyPlace, x509.Certificate]
    deterministic: bool

    def application(self, spec: ApplicationSpec, root: DedicatedFile) -> DedicatedFile:
        made = DedicatedFile(
            spec.identifier,
            name=spec.name,
            parent=root,
            # Assumed: whoever knows the first global PIN may add files to an application.
            rules=FileRules(create=any_pin(*(pin.reference for pin in self.personality.pins[:1]))),
            signature_key=_default_signature_key(spec),
        )
        rule = any_pin(*spec.opened_by, once=spec.once)
        for key in spec.keys:
            made.keys[key.reference] = card_key(
                key.reference,
                self._key(KeyPlace(spec.label, key.reference), key),
                templates=frozenset(key.templates),
                rule=rule,
                deterministic=self.deterministic,
            )
        self._add_certificates(made, spec)
        for key in spec.keys:
            made.add(*self._key_files(key, made.keys[key.reference]))
        if spec.key_descriptions is not None:
            made.add(RecordFile(spec.key_descriptions, _key_descriptions(spec)))
        made.add(*map(_file, spec.files))
        _add_pins(made, spec.pins, spec.password_descriptions, self.personality.dialect)
        return made

    def _key(self, place: KeyPlace, spec: KeySpec) -> PrivateKey:
        return self.keys.get(place) or load_card_key(spec.test_key)

    def _key_files(self, spec: KeySpec, key: CardKey) -> Iterator[ElementaryFile]:
        if spec.public_key is not None and isinstance(key, RsaCardKey):
            yield _public_key(spec.public_key, key, self.personality.dialect.public_key_records)
        if spec.private_key is not None:
            yield KeyFile(spec.private_key, key)

    def _certificate(self, place: KeyPlace, spec: KeySpec, key: CardKey) -> x509.Certificate:
        return self.certificates.get(place) or self.ca.issue_card_certificate(spec.role, key.public_key)

    def _add_certificates(self, directory: DedicatedFile, spec: ApplicationSpec) -> None:
        # Assumed: whoever may use the keys may store certificates for them.
        writable = FileRules(read=ALWAYS, update=any_pin(*spec.opened_by))
        for key in spec.keys:
            if key.certificate is not None:
                place = KeyPlace(spec.label, key.reference)
                certificate = self._certificate(place, key, directory.keys[key.reference])
                rules = writable if spec.writable else READ_ONLY
                directory.add(self._certificate_file(key.certificate, certificate, rules))
        if spec.ca_certificate is not None:
            directory.add(self._certificate_file(spec.ca_certificate, self.ca.intermediate))
        if spec.root_certificate is not None:
            directory.add(self._certificate_file(spec.root_certificate, self.ca.root))
        directory.add(*(self._empty_file(identifier, writable) for identifier in spec.user_certificates))
        directory.add(*(self._empty_file(identifier, READ_ONLY) for identifier in spec.empty))

    def _certificate_file(
        self, identifier: int, certificate: x509.Certificate, rules: FileRules = READ_ONLY
    ) -> TransparentFile:
        """A certificate, filled up with FF: all files have one size, unless a certificate needs a larger one."""
        content = certificate.public_bytes(serialization.Encoding.DER)
        form = self.personality.certificates
        if form.form is CertificateForm.CONTAINER:
            content = Tlv(_SEQUENCE, _USER_CERTIFICATE + content).encode()
        return TransparentFile(identifier, content.ljust(form.file_size, erased(1)), rules)

    def _empty_file(self, identifier: int, rules: FileRules) -> TransparentFile:
        return TransparentFile(identifier, erased(self.personality.certificates.user_file_size), rules)


def _default_signature_key(spec: ApplicationSpec) -> int | None:
    """The first one that is for signatures."""
    signing = (key.reference for key in spec.keys if ControlReferenceTemplate.DIGITAL_SIGNATURE in key.templates)
    return next(signing, None)


def _file(spec: FileSpec) -> TransparentFile:
    return TransparentFile(spec.identifier, spec.content)


def _public_key(identifier: int, key: RsaCardKey, form: RecordForm) -> RecordFile:
    """EF.PK: modulus and public exponent, a record each."""
    numbers = key.public_key.public_numbers()
    exponent = numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big")
    records = (numbers.n.to_bytes(key.modulus_length, "big"), exponent)
    return RecordFile(identifier, tuple(_RECORD_FORMS[form](record) for record in records))


def _simple_tlv(value: bytes) -> bytes:
    """The tag is the same in every record, as on the cards that GnuPG's authors had."""
    return bytes((_NUMBER_TAG, len(value))) + value


_RECORD_FORMS: Final[Mapping[RecordForm, Callable[[bytes], bytes]]] = MappingProxyType(
    {RecordForm.PLAIN: bytes, RecordForm.SIMPLE_TLV: _simple_tlv}
)


def _key_descriptions(spec: ApplicationSpec) -> tuple[bytes, ...]:
    """EF.KEYD: ``A0 03 83 01 reference``, then an empty template for each thing that the key can do."""
    records = [
        bytes((0xA0, 3, 0x83, 1, key.reference)) + b"".join(bytes((template, 0)) for template in key.templates)
        for key in spec.keys
    ]
    if spec.description:
        records[0] += spec.description
    return tuple(records)
