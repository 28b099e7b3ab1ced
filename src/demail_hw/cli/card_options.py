"""What card a simulated reader has in it: options that several simulators share."""

import dataclasses
import functools
import string
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import click

if TYPE_CHECKING:
    from demail_hw_simulators.interfaces import SimulatedCard
    from demail_hw_simulators.reader_profiles import ReaderProfile

__all__ = ["USUAL_PROFILE", "CardOptions", "card_options", "open_simulated_card", "simulated_profile"]

_T = TypeVar("_T")
_KeyName: TypeAlias = int | tuple[str, int]  # by reference, or by application and reference
USUAL_PROFILE: Final = "ext_apdu"
_BYTE: Final = 2  # in hexadecimal digits


class _AssignmentType(click.ParamType[tuple[_KeyName, str]]):
    """A key's reference in hexadecimal, perhaps with its application before it, and a file."""

    name = "ref=file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[_KeyName, str]:
        name, equals, path = value.partition("=")
        application, colon, reference = name.rpartition(":")
        named = bool(application) is bool(colon)
        hexadecimal = len(reference) == _BYTE and set(reference) <= set(string.hexdigits)
        if not (named and hexadecimal and equals and path):
            self.fail(f"{value!r} is not REF=FILE, such as 80=key.pem or nks:80=key.pem", param, ctx)
        number = int(reference, 16)
        return (application, number) if application else number, path


def _each_once(
    context: click.Context,  # noqa: ARG001  click's signature
    parameter: click.Parameter,
    pairs: Sequence[tuple[_KeyName, str]],
) -> dict[_KeyName, str]:
    files = dict(pairs)
    if len(files) < len(pairs):
        raise click.BadParameter("a reference stands there twice", param=parameter)
    return files


@dataclasses.dataclass(frozen=True, slots=True)
class CardOptions:
    """``keys`` and ``certificates``: paths by name of the key. ``timing``: a seed, or ``None`` for a card that takes
    no time."""

    personality: str
    keys: Mapping[_KeyName, str] = dataclasses.field(default_factory=dict)
    certificates: Mapping[_KeyName, str] = dataclasses.field(default_factory=dict)
    timing: int | None = None


_OPTIONS: Final = (
    click.option(
        "--personality",
        metavar="NAME",
        default="netkey3",
        show_default=True,
        help="What card is in the reader: a name that `demail-hw readers sim:` lists, or a TOML file.",
    ),
    click.option(
        "--key",
        "keys",
        metavar="REF=FILE",
        type=_AssignmentType(),
        multiple=True,
        callback=_each_once,
        help="Your own test key in place of the card's, by reference: 80=key.pem, or nks:80=key.pem where two "
        "applications have the same. May be repeated.",
    ),
    click.option(
        "--certificate",
        "certificates",
        metavar="REF=FILE",
        type=_AssignmentType(),
        multiple=True,
        callback=_each_once,
        help="The certificate of a key; without it the simulated CA issues one. May be repeated.",
    ),
    click.option(
        "--timing", metavar="SEED", type=int, help="Take the time that a card takes, scattered by this seed."
    ),
)


def card_options(function: Callable[..., _T]) -> Callable[..., _T]:
    """``--personality``, ``--key``, ``--certificate`` and ``--timing``: the command gets them as ``card``."""

    @functools.wraps(function)
    def with_card(
        *,
        personality: str,
        keys: Mapping[_KeyName, str],
        certificates: Mapping[_KeyName, str],
        timing: int | None,
        **others: object,
    ) -> _T:
        return function(card=CardOptions(personality, keys, certificates, timing), **others)

    command: Callable[..., _T] = with_card
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def simulated_profile(name: str | None) -> "ReaderProfile":
    """What a simulated USB reader is; ``None`` for the usual one.

    Errors: :class:`~demail_hw.errors.ConfigurationError`.
    """
    from demail_hw.errors import ConfigurationError
    from demail_hw_simulators.reader_profiles import reader_profile, reader_profiles

    try:
        return reader_profile(name or USUAL_PROFILE)
    except ValueError as error:
        raise ConfigurationError(
            f"There is no simulated reader {name!r}.",
            remedy=f"Name one of these as profile: {', '.join(reader_profiles())}.",
        ) from error


def open_simulated_card(options: CardOptions) -> "SimulatedCard":
    """The card that the options describe.

    Errors: :class:`~demail_hw.errors.ConfigurationError`.
    """
    from demail_hw.errors import ConfigurationError
    from demail_hw_simulators.card.own_keys import load_own_certificates, load_own_keys
    from demail_hw_simulators.card.personalities import PERSONALITIES, build_card, find_personality
    from demail_hw_simulators.card.timing import TimedCard, TimingModel

    try:
        personality = find_personality(options.personality)
    except ValueError as error:
        raise ConfigurationError(
            f"There is no simulated card {options.personality!r}.",
            remedy=f"Name one of these (--personality): {', '.join(PERSONALITIES)}; or a file that ends with .toml.",
        ) from error
    keys = load_own_keys(options.keys, personality)
    certificates = load_own_certificates(options.certificates, personality, keys)
    card = build_card(personality, keys=keys, certificates=certificates)
    if options.timing is None:
        return card
    if personality.timing is None:
        raise ConfigurationError(
            f"The personality {options.personality} does not say how long its card takes.",
            remedy="Leave --timing out, or add a [timing] table to a personality of your own.",
        )
    return TimedCard(card, TimingModel(personality.timing, atr=personality.atr, seed=options.timing))
