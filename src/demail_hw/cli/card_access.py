"""How a command opens a card: with the ledger and the trace that the options before the command name."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import click

from demail_hw.address import Address
from demail_hw.card_manager.manager import CardManager, open_manager
from demail_hw.interfaces import KeyProvider, PinLedger
from demail_hw.iso7816.trace import Tracer
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.pin_guard import KEPT_TRIES
from demail_hw.keys.provider import open_provider
from demail_hw.pin_ledger import ledger_for

__all__ = ["Settings", "manage", "open_keys", "open_ledger", "open_session"]


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """``state_dir``: where the PIN ledger is, if it was said. ``tracer``: what records the exchanges, if one does."""

    state_dir: Path | None = None
    tracer: Tracer | None = None


def _settings() -> Settings:
    return click.get_current_context().find_object(Settings) or Settings()


def open_ledger(address: Address) -> PinLedger:
    """The ledger of the card at the address."""
    return ledger_for(address, directory=_settings().state_dir)


@contextlib.contextmanager
def open_session(address: Address) -> Iterator[CardSession]:
    """The card at the address, to the end of the ``with`` block."""
    with CardSession.open(address, tracer=_settings().tracer) as session:
        yield session


@contextlib.contextmanager
def manage(address: Address, *, kept: int = KEPT_TRIES, attended: bool = False) -> Iterator[CardManager]:
    """The card at the address and what one does to it by hand, to the end of the ``with`` block."""
    with open_manager(
        address, kept=kept, attended=attended, ledger=open_ledger(address), tracer=_settings().tracer
    ) as manager:
        yield manager


@contextlib.contextmanager
def open_keys(address: Address, pin: str, which: str) -> Iterator[KeyProvider]:
    """The keys of the card at the address, to the end of the ``with`` block."""
    with open_provider(address, pin, which=which, ledger=open_ledger(address), tracer=_settings().tracer) as provider:
        yield provider
