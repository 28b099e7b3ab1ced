"""The cards that can be simulated, by name. What they are like is said in the TOML files here (README.md)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cryptography import x509

from demail_hw.identity import PrivateKey
from demail_hw_simulators.card.build import build_card, load_card_key
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.key_names import KeyName
from demail_hw_simulators.card.personality import Personality
from demail_hw_simulators.card.personality_file import load_personality, own_personality

__all__ = [
    "NETKEY3",
    "NETKEY3_FRESH",
    "PERSONALITIES",
    "build_card",
    "find_personality",
    "load_card_key",
    "netkey3",
    "netkey3_fresh",
    "open_card",
]

_OWN: Final = ".toml"

_FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "netkey3": "netkey3",
        "netkey3-fresh": "netkey3-fresh",
        "telesec": "netkey3",
        "netkey2": "netkey2",
        "idkey": "idkey",
        "signature-card-v2": "signature-card-v2",
        "signature-card-v2-brainpool": "signature-card-v2-brainpool",
    }
)
"""Name -> file; ``telesec`` is another word for ``netkey3``."""

if TYPE_CHECKING:
    NETKEY3: Personality
    NETKEY3_FRESH: Personality
else:
    _CONSTANTS: Final = MappingProxyType({"NETKEY3": "netkey3", "NETKEY3_FRESH": "netkey3-fresh"})

    def __getattr__(name: str) -> Personality:
        """The personalities that have names here are read when they are asked for, not on import."""
        if name in _CONSTANTS:
            return load_personality(_CONSTANTS[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def find_personality(name: str) -> Personality:
    """A personality by its name, or by the path of somebody's own TOML file, which ends with ``.toml``.

    ``ValueError`` if there is none of this name. Errors: :class:`~demail_hw.errors.ConfigurationError`.
    """
    if name.endswith(_OWN):
        return own_personality(Path(name))
    if name not in _FILES:
        raise ValueError(f"no personality {name!r}; known: {', '.join(_FILES)}, or a file that ends with {_OWN}")
    return load_personality(_FILES[name])


def open_card(
    name: str,
    *,
    seed: int | None = None,
    keeps_local_pins: bool | None = None,
    keeps_environment: bool | None = None,
) -> SimulatedTcosCard:
    """A new card of a personality; names and errors as in :func:`find_personality`.

    ``seed``: as in :func:`build_card`. ``keeps_local_pins``, ``keeps_environment``: another dialect than the
    personality's (:class:`~demail_hw_simulators.card.dialect.Dialect`), where nobody knows what a real card does.
    """
    personality = find_personality(name)
    dialect = personality.dialect
    dialect = dataclasses.replace(
        dialect,
        keeps_local_pins=dialect.keeps_local_pins if keeps_local_pins is None else keeps_local_pins,
        keeps_environment=dialect.keeps_environment if keeps_environment is None else keeps_environment,
    )
    return build_card(dataclasses.replace(personality, dialect=dialect), seed=seed)


def netkey3(
    *,
    iccsn: str | None = None,
    keys: Mapping[KeyName, PrivateKey] | None = None,
    certificates: Mapping[KeyName, x509.Certificate] | None = None,
    seed: int | None = None,
) -> SimulatedTcosCard:
    """A TeleSec NetKey 3 card in use; options as in :func:`build_card`."""
    return build_card(load_personality("netkey3"), iccsn=iccsn, keys=keys, certificates=certificates, seed=seed)


def netkey3_fresh() -> SimulatedTcosCard:
    """A TeleSec NetKey 3 card as it is delivered."""
    return open_card("netkey3-fresh")


PERSONALITIES: Final[Mapping[str, Callable[[], SimulatedTcosCard]]] = MappingProxyType(
    {name: functools.partial(open_card, name) for name in _FILES}
)
"""What opens a card of each personality of ours."""
