"""From a personality's file, in TOML, to the specification of a card. The form: the README beside those files."""

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from demail_hw.errors import ConfigurationError
from demail_hw.identity import KeyRole
from demail_hw.tcos.layout import ControlReferenceTemplate
from demail_hw.tcos.public_key_file import RecordForm
from demail_hw_simulators.card import personality_values as values
from demail_hw_simulators.card.build import load_card_key
from demail_hw_simulators.card.commands.table import Instruction
from demail_hw_simulators.card.dialect import Dialect
from demail_hw_simulators.card.personality import (
    ApplicationSpec,
    CertificateForm,
    CertificateSpec,
    FileSpec,
    InitialPukSpec,
    KeyAlgorithm,
    KeySpec,
    OperationTime,
    Personality,
    PinSpec,
    TimingSpec,
    algorithm_of,
    require_iccsn,
)
from demail_hw_simulators.card.personality_table import PersonalityText, Table, Tree

__all__ = ["load_personality", "own_personality", "parse_personality", "personality_tree"]

_ENDING: Final = ".toml"
_LONGEST: Final = 1 << 18
_TITLE: Final = "title"
_EXTENDS: Final = "extends"
_TITLE_REMEDY: Final = 'Write title = "..." at its top, a name for people; a file that extends another has one too.'

_SIZE: Final = values.whole_number(1, 0x7FFF)
_AID: Final = values.hexadecimal(1, 16)
_BYTES: Final = values.list_of(values.byte)
_IDENTIFIERS: Final = values.list_of(values.file_identifier)


@functools.cache
def load_personality(name: str) -> Personality:
    """One of our personalities, by the name of its file. ``ValueError`` if there is none of this name."""
    return parse_personality(_built_in(name))


def own_personality(path: Path) -> Personality:
    """Somebody's own personality. :class:`~demail_hw.errors.ConfigurationError`."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise ConfigurationError(
                f"The personality {path} has more than {_LONGEST} bytes.",
                file=str(path),
                remedy="Check that it is the right file.",
            )
        return parse_personality(PersonalityText(str(path), content.decode("utf-8")))
    except OSError as error:
        raise ConfigurationError(
            f"The personality {path} cannot be read: {error.strerror}.", file=str(path), remedy="Check its path."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"The personality {path} is not in UTF-8.", file=str(path), remedy="Store it in UTF-8."
        ) from error


def parse_personality(text: PersonalityText) -> Personality:
    """A personality from its text. :class:`~demail_hw.errors.ConfigurationError`."""
    title, tree = personality_tree(text)
    return Table(tree).read(lambda table: _personality(title, table))


def personality_tree(text: PersonalityText) -> tuple[str, Tree]:
    """Its title and its values, with those of the personality that it extends.

    Errors: :class:`~demail_hw.errors.ConfigurationError`.
    """
    raw = _decode(text)
    title = _about(text, raw, _TITLE)
    if title is None:
        raise text.error((), f"lacks a {_TITLE}", remedy=_TITLE_REMEDY)
    base = _about(text, raw, _EXTENDS)
    tree = Tree.of(raw, text)
    if base is None:
        return title, tree
    try:
        _, extended = personality_tree(_built_in(base))
    except ValueError as error:
        remedy = f"Only ours can be extended: {', '.join(_names())}."
        raise text.error((_EXTENDS,), f"names what cannot be extended: {error}", remedy=remedy) from None
    return title, extended.overridden_by(tree)


def _folder() -> Traversable:
    return importlib.resources.files("demail_hw_simulators.card") / "personalities"


def _names() -> list[str]:
    return sorted(file.name.removesuffix(_ENDING) for file in _folder().iterdir() if file.name.endswith(_ENDING))


def _built_in(name: str) -> PersonalityText:
    file = _folder() / f"{name}{_ENDING}"
    if not name.replace("-", "").isalnum() or not file.is_file():
        raise ValueError(f"there is no personality {name!r}")
    return PersonalityText(f"{name}{_ENDING}", file.read_text(encoding="utf-8"))


def _decode(text: PersonalityText) -> dict[str, object]:
    try:
        return tomllib.loads(text.text)
    except ValueError as error:
        raise text.error((), f"is not TOML: {str(error).rstrip('.')}") from None
    except RecursionError:
        raise text.error((), "is too deep") from None


def _about(text: PersonalityText, raw: dict[str, object], name: str) -> str | None:
    """What a file says of itself: no value of the card, so without a mark."""
    if name not in raw:
        return None
    try:
        return values.text(raw.pop(name))
    except ValueError as error:
        raise text.error((name,), str(error)) from None


# --- one function for each kind of table


class _Card(NamedTuple):
    atr: bytes
    information: bytes
    iccsn: str
    global_data: int
    password_descriptions: int | None


def _personality(title: str, table: Table) -> Personality:
    card = table.table("card", _card)
    return Personality(
        title=title,
        atr=card.atr,
        information=card.information,
        iccsn=card.iccsn,
        global_data=card.global_data,
        password_descriptions=card.password_descriptions,
        dialect=table.table("dialect", _dialect),
        certificates=table.table("certificates", _certificates),
        pins=table.tables("pins", _pin),
        files=table.tables("files", _file),
        initial_puk=table.optional_table("initial_puk", _initial_puk),
        applications=table.tables("applications", _application),
        timing=table.optional_table("timing", _timing),
    )


def _card(table: Table) -> _Card:
    return _Card(
        atr=table.value("atr", values.answer_to_reset),
        information=table.optional("information", values.hexadecimal(1, 256), b""),
        iccsn=table.value("iccsn", _iccsn),
        global_data=table.value("global_data", values.file_identifier),
        password_descriptions=table.optional("password_descriptions", values.file_identifier, None),
    )


def _iccsn(value: object) -> str:
    text = values.text(value)
    try:
        require_iccsn(text)
    except ValueError as error:
        raise ValueError(f"is none: {error}") from None
    return text


def _dialect(table: Table) -> Dialect:
    signature = table.value("signature_algorithms", _BYTES)
    confidentiality = table.value("confidentiality_algorithms", _BYTES)
    plain = table.value("plain_indicators", _BYTES)
    unpadding = table.value("unpadding_indicators", _BYTES)
    if not set(plain).isdisjoint(unpadding):
        raise ValueError("an indicator takes the padding away, or it does not")
    return Dialect(
        extended_length=table.value("extended_length", values.flag),
        environment_p1=frozenset(table.value("environment_p1", _BYTES)),
        algorithms=MappingProxyType(
            {
                ControlReferenceTemplate.DIGITAL_SIGNATURE: frozenset(signature),
                ControlReferenceTemplate.CONFIDENTIALITY: frozenset(confidentiality),
            }
        ),
        padding_indicators=MappingProxyType({**dict.fromkeys(plain, False), **dict.fromkeys(unpadding, True)}),
        bare_blocks=table.value("bare_blocks", values.flag),
        public_key_records=table.value("public_key_records", values.choice(RecordForm)),
        null_pin=table.value("null_pin", values.hexadecimal(1, 16)),
        longest_pin=table.value("longest_pin", values.whole_number(6, 32)),
        change_verifies=table.value("change_verifies", values.flag),
        keeps_local_pins=table.value("keeps_local_pins", values.flag),
        keeps_environment=table.value("keeps_environment", values.flag),
    )


def _certificates(table: Table) -> CertificateSpec:
    return CertificateSpec(
        form=table.value("form", values.choice(CertificateForm)),
        file_size=table.value("file_size", _SIZE),
        user_file_size=table.value("user_file_size", _SIZE),
    )


def _pin(table: Table) -> PinSpec:
    initialized = table.value("initialized", values.flag)
    # What extends a card in use has its values, which a NullPIN has not.
    value = table.value("value", values.pin_value) if initialized else table.optional("value", values.pin_value, None)
    return PinSpec(
        reference=table.value("reference", values.byte),
        value=value if initialized else None,
        unblocked_by=table.optional("unblocked_by", values.byte, None),
        minimum=table.value("minimum", values.whole_number(1, 16)),
        tries=table.value("tries", values.whole_number(0, 15)),
        maximum_tries=table.value("maximum_tries", values.whole_number(1, 15)),
        set_by=table.optional("set_by", _BYTES, None),
        file=table.optional("file", values.file_identifier, None),
    )


def _initial_puk(table: Table) -> InitialPukSpec:
    return InitialPukSpec(
        identifier=table.value("identifier", values.file_identifier),
        key=table.value("key", values.byte),
        value=table.value("value", values.pin_value),
    )


def _file(table: Table) -> FileSpec:
    return FileSpec(
        identifier=table.value("identifier", values.file_identifier),
        content=table.value("content", values.hexadecimal(1, 0x7FFF)),
    )


def _key(table: Table) -> KeySpec:
    spec = KeySpec(
        reference=table.value("reference", values.byte),
        algorithm=table.value("algorithm", values.choice(KeyAlgorithm)),
        templates=table.value("templates", values.list_of(values.choice(ControlReferenceTemplate))),
        role=table.value("role", values.choice(KeyRole)),
        test_key=table.value("test_key", values.file_name),
        certificate=table.optional("certificate", values.file_identifier, None),
        public_key=table.optional("public_key", values.file_identifier, None),
        private_key=table.optional("private_key", values.file_identifier, None),
    )
    _require_test_key(spec)
    return spec


def _require_test_key(spec: KeySpec) -> None:
    try:
        algorithm = algorithm_of(load_card_key(spec.test_key))
    except FileNotFoundError:
        raise ValueError("there is no such test_key") from None
    if algorithm is not spec.algorithm:
        raise ValueError(f"the test_key is {algorithm.value}")


def _application(table: Table) -> ApplicationSpec:
    return ApplicationSpec(
        label=table.name,
        identifier=table.value("identifier", values.file_identifier),
        name=table.optional("aid", _AID, b""),
        pins=table.tables("pins", _pin),
        keys=table.tables("keys", _key),
        opened_by=table.value("opened_by", _BYTES),
        ca_certificate=table.optional("ca_certificate", values.file_identifier, None),
        root_certificate=table.optional("root_certificate", values.file_identifier, None),
        user_certificates=table.optional("user_certificates", _IDENTIFIERS, ()),
        empty=table.optional("empty", _IDENTIFIERS, ()),
        files=table.tables("files", _file),
        password_descriptions=table.optional("password_descriptions", values.file_identifier, None),
        key_descriptions=table.optional("key_descriptions", values.file_identifier, None),
        description=table.optional("description", values.hexadecimal(1, 100), b""),
        once=table.optional("once", values.flag, False),
        writable=table.optional("writable", values.flag, False),
    )


def _timing(table: Table) -> TimingSpec:
    return TimingSpec(
        commands=table.table("commands", _command_times),
        other=table.value("other", values.seconds),
        operations=table.tables("operations", _operation_time),
        spread=table.value("spread", values.share),
    )


_INSTRUCTIONS: Final[Mapping[str, Instruction]] = {each.name.lower(): each for each in Instruction}


def _command_times(table: Table) -> Mapping[int, float]:
    times = {instruction: table.optional(name, values.seconds, None) for name, instruction in _INSTRUCTIONS.items()}
    return MappingProxyType({instruction: time for instruction, time in times.items() if time is not None})


def _operation_time(table: Table) -> OperationTime:
    return OperationTime(
        answer=table.value("answer", values.whole_number(1, 0x1000)),
        mean=table.value("mean", values.seconds),
    )
