"""How a command opens a card: with the ledger and the trace that the options before the command name."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from demail_hw.address import Address
from demail_hw.card_manager.manager import CardManager, open_manager
from demail_hw.cli.pin_dialog import CardPlace, given_source, typed_pin
from demail_hw.cli.progress import waiting
from demail_hw.errors import ConfigurationError, PinIncorrect
from demail_hw.interfaces import KeyProvider, PinLedger, ShareMode, Timeouts
from demail_hw.iso7816.trace import ReaderOpened, Tracer
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.key_selection import pin_of
from demail_hw.keys.pin_attempts import as_known
from demail_hw.keys.pin_guard import KEPT_TRIES
from demail_hw.keys.provider import TcosKeyProvider
from demail_hw.pin_ledger import MemoryPinLedger, ledger_for
from demail_hw.registry import open_reader, reader_driver
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import PinName
from demail_hw.traces.comparison import Comparison, compare
from demail_hw.traces.files import FileTracer, read_trace

__all__ = [
    "Settings",
    "compare_with",
    "forgets",
    "look_at",
    "manage",
    "open_keys",
    "open_ledger",
    "open_session",
    "open_tracer",
    "tell_if_it_forgets",
]

_LOG = logging.getLogger(__name__)
_TRACER: Final = "demail_hw.tracer"
_REPLAY: Final = "replay"


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """``state_dir``: where the PIN ledger is, if it was said. ``trace``: where the exchanges are recorded, if they
    are; ``deciphered``: with what the card deciphers."""

    state_dir: Path | None = None
    trace: Path | None = None
    deciphered: bool = False


def _settings() -> Settings:
    return click.get_current_context().find_object(Settings) or Settings()


def open_tracer(address: Address) -> Tracer | None:
    """What records the exchanges, to the end of the whole command. The file is made when the first card is opened."""
    settings, root = _settings(), click.get_current_context().find_root()
    if settings.trace is None:
        return None
    if _TRACER not in root.meta:
        if address.scheme == _REPLAY:
            _spare(settings.trace, address.selector)
        root.meta[_TRACER] = root.with_resource(FileTracer(settings.trace, deciphered=settings.deciphered))
    tracer: Tracer = root.meta[_TRACER]
    return tracer


def _spare(new: Path, replayed: str | Path) -> None:
    with contextlib.suppress(OSError, ValueError):  # ValueError: a zero byte in the name
        if new.samefile(replayed):
            raise click.UsageError(f"--trace {new} would overwrite the trace that is replayed")


def open_ledger(address: Address) -> PinLedger:
    """The ledger of the card at the address."""
    return ledger_for(address, directory=_settings().state_dir)


def forgets(address: Address) -> bool:
    """Whether what is done to this card ends with the command: a simulated or a recorded one of this process."""
    return reader_driver(address.scheme).in_process


def tell_if_it_forgets(address: Address) -> None:
    """After a card was changed; so nobody believes that it stays so."""
    if forgets(address):
        _LOG.warning("%s; one that remembers is in demail-hw simulate usb-server.", _it_forgets(address))


def _it_forgets(address: Address) -> str:
    return f"The card of {address} is simulated or recorded, and forgets when this command ends what was done to it"


@contextlib.contextmanager
def _losing_no_try(address: Address) -> Iterator[None]:
    """Around what sends a PIN: to restore the tries of a card that forgets is good for nothing."""
    try:
        yield
    except PinIncorrect as error:
        if forgets(address):
            error.remedy = f"{_it_forgets(address)}, also the lost try: begin again with the right PIN."
        raise


@contextlib.contextmanager
def open_session(address: Address) -> Iterator[CardSession]:
    """The card at the address, to the end of the ``with`` block."""
    with waiting(), _losing_no_try(address), CardSession.open(address, tracer=open_tracer(address)) as session:
        yield session


@contextlib.contextmanager
def manage(
    address: Address, *, kept: int = KEPT_TRIES, attended: bool = False, ledger: PinLedger | None = None
) -> Iterator[CardManager]:
    """The card at the address and what one does to it by hand, to the end of the ``with`` block."""
    book, tracer = ledger or open_ledger(address), open_tracer(address)
    with (
        waiting(),
        _losing_no_try(address),
        open_manager(address, kept=kept, attended=attended, ledger=book, tracer=tracer) as manager,
    ):
        yield manager


def look_at(address: Address) -> contextlib.AbstractContextManager[CardManager]:
    """The same where no PIN is sent: nobody needs a folder for a ledger to look at a card."""
    try:
        ledger = open_ledger(address)
    except ConfigurationError:
        ledger = MemoryPinLedger()
    return manage(address, ledger=ledger)


@contextlib.contextmanager
def open_keys(address: Address, pin: str, which: str) -> Iterator[KeyProvider]:
    """The keys of the card at the address, to the end of the ``with`` block.

    Whoever types the PIN is told for which card.
    """
    given, name, ledger = given_source(pin), PinName(which), open_ledger(address)
    with open_session(address) as session:
        source = given or _typed(session, ledger, name)
        with TcosKeyProvider(session, source, ledger=ledger, which=name) as provider:
            yield provider


def _typed(session: CardSession, ledger: PinLedger, name: PinName) -> PinSource:
    """With the tries that are known, where the card hides them."""
    pin, record = pin_of(session.card.profile, name), ledger.records(session.serial).get(name.value)
    with session.transaction() as deadline:
        status = session.card.pin_status(pin, deadline=deadline)
    return typed_pin(CardPlace.of(session), pin, as_known(status, record).retries_left)


def compare_with(address: Address, path: Path, *, use_keys: bool = False) -> Comparison:
    """A trace against the card at the address, whatever card it is, unless the address demands one."""
    trace = read_trace(path)
    if (new := _settings().trace) is not None:
        _spare(new, path)
    tracer = open_tracer(address)
    if address.card is not None:
        with open_session(address):
            pass  # refuses any other
    times = Timeouts()

    def deadline() -> float:
        return time.monotonic() + times.command

    with waiting(), contextlib.ExitStack() as resources:
        reader = open_reader(address, timeouts=times)
        resources.callback(reader.close)
        if tracer is not None:
            tracer.trace(ReaderOpened(reader.name, reader.serial))
        connection = reader.connect(ShareMode(address.share or ShareMode.EXCLUSIVE.value), deadline=deadline())
        resources.callback(connection.close)
        return compare(trace, connection, deadline, use_keys=use_keys, tracer=tracer)
