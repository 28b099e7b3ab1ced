"""Readers of PC/SC, through pcscd or the system's own service: the addresses of the scheme ``pcsc:``.

::

    pcsc:                           any reader
    pcsc:Identiv*                   a reader whose name this pattern matches (* ? [])
    pcsc:serial=53692013000000      by serial number, if the reader's driver says it
    ...?reader=53692013000000       of several of these, the one with this serial number

Where an address means several readers, it is the only one of them that has a card in it. One of which nobody can say
whether it has one counts as if it had: the card in it must not be passed over for another.

A ``?`` of a pattern is written %3F. A name that is written out is taken before a pattern.
"""

import dataclasses
import fnmatch
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from demail_hw.address import Address
from demail_hw.errors import ConfigurationError, DeadlineExceeded, DeviceNotFound, Layer, Outcome
from demail_hw.interfaces import Deadline, ReaderInfo, Timeouts
from demail_hw_drivers.pcsc_calls import CallThread, call_each
from demail_hw_drivers.pcsc_card import read_serial
from demail_hw_drivers.pcsc_errors import PcscFailure, Stage, pcsc_errors
from demail_hw_drivers.pcsc_monitor import Occupancy, ask, look_at_readers
from demail_hw_drivers.pcsc_reader import PcscReader
from demail_hw_drivers.pcsc_service import PcscService, load_pyscard

__all__ = ["PcscReaders"]

_UNKNOWN: Final = Occupancy(card=None, in_use=None)
_CARD: Final = {True: "card", False: "no card", None: "card not known"}
_NAME_ONE: Final = (
    "Name one in the address, quoted in a shell: 'pcsc:NAME', with * for a part of it, or the card with ?card=ICCSN; "
    "demail-hw readers pcsc: lists them."
)


class _Found(NamedTuple):
    """What is known of a reader. ``serial``: None where it was not asked, or not told."""

    occupancy: Occupancy
    serial: str | None = None


class PcscReaders:
    """The driver of ``pcsc:`` (:class:`~demail_hw.interfaces.ReaderDriver`).

    ``scard``: what to use in place of the module ``smartcard.scard``.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if pyscard is not installed.
    """

    in_process: Final = False
    can_share: Final = True
    parameters: Final[frozenset[str]] = frozenset()

    def __init__(self, scard: Any = None) -> None:
        self._service = PcscService(load_pyscard() if scard is None else scard)

    def open(self, address: Address, *, timeouts: Timeouts) -> PcscReader:
        """The one reader that the address means. The card is not touched.

        Where the address demands a serial number, a reader that another program keeps busy is waited for until the
        deadline; its number is then not known.

        Errors: :class:`~demail_hw.errors.DeviceNotFound` if there is none, or several and not one alone with a card;
        :class:`~demail_hw.errors.TransportError` without a service, :class:`~demail_hw.errors.DeadlineExceeded`.
        """
        readers = self._survey(address, time.monotonic() + timeouts.connect)
        name = _choose(address, readers)
        return PcscReader(self._service, name, serial=readers[name].serial)

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:
        """The readers that the address can mean. The serial number of one that is in use is not asked for, unless
        the address demands one."""
        readers = self._survey(address, time.monotonic() + timeouts.connect)
        found = _with_serial(address.reader, _meant(address, readers))
        return [_info(address, name, reader) for name, reader in found.items()]

    def _survey(self, address: Address, deadline: Deadline) -> Mapping[str, _Found]:
        """Every reader. What the address can mean is asked, each in a thread and a context of its own: one that
        another program keeps busy holds up nobody else."""
        if address.host:
            raise ConfigurationError(
                f"{str(address)!r} names a host, but PC/SC's readers are here.", remedy="Write pcsc:NAME, without //."
            )
        seen = ask(CallThread("PC/SC readers"), self._look, deadline=deadline, late=_silent)
        demanded = _demanded(address) is not None
        questions = {
            name: partial(self._ask, name, seen[name], demanded=demanded)
            for name in _named(address, tuple(seen))
            if demanded or not seen[name].in_use
        }
        with pcsc_errors(Stage.ASKING):
            answers = call_each(questions, deadline=deadline)
        return {name: answers.get(name) or _Found(occupancy) for name, occupancy in seen.items()}

    # --- In a thread

    def _look(self) -> Mapping[str, Occupancy]:
        with self._service.context() as context:
            names = self._service.list_readers(context)
            plain = [name for name in names if name.isascii()]
            seen = look_at_readers(self._service, context, plain) if plain else {}
            return {name: seen.get(name, _UNKNOWN) for name in names}

    def _ask(self, name: str, occupancy: Occupancy, *, demanded: bool) -> _Found:
        with self._service.context() as context:
            if not name.isascii():
                occupancy = look_at_readers(self._service, context, [name])[name]
            serial = self._serial(context, name) if demanded or occupancy.in_use is False else None
            return _Found(occupancy, serial)

    def _serial(self, context: int, name: str) -> str | None:
        try:
            with self._service.reader_alone(context, name) as reader:
                return read_serial(self._service, reader)
        except PcscFailure:
            return None


def _named(address: Address, names: Sequence[str]) -> Sequence[str]:
    selector = address.selector
    if not selector or address.serial is not None:
        return names
    if selector in names:
        return (selector,)
    return [name for name in names if fnmatch.fnmatchcase(name, selector)]


def _meant(address: Address, readers: Mapping[str, _Found]) -> Mapping[str, _Found]:
    return _with_serial(address.serial, {name: readers[name] for name in _named(address, tuple(readers))})


def _with_serial(serial: str | None, readers: Mapping[str, _Found]) -> Mapping[str, _Found]:
    return {name: reader for name, reader in readers.items() if serial in (None, reader.serial)}


def _demanded(address: Address) -> str | None:
    return address.reader if address.serial is None else address.serial


def _choose(address: Address, readers: Mapping[str, _Found]) -> str:
    meant = _meant(address, readers)
    if len(meant) > 1:  # of one alone ?reader= is checked above us
        meant = _with_serial(address.reader, meant)
    with_card = {name: reader for name, reader in meant.items() if reader.occupancy.card is not False}
    for choice in (meant, with_card):
        if len(choice) == 1:
            return next(iter(choice))
    raise _not_one(address, readers, meant, with_card)


def _info(address: Address, name: str, reader: _Found) -> ReaderInfo:
    where = dataclasses.replace(address, selector=name)
    return ReaderInfo(str(where), name, reader.serial, card=reader.occupancy.card, in_use=reader.occupancy.in_use)


def _silent() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The PC/SC service did not list its readers until the deadline.",
        layer=Layer.READER,
        outcome=Outcome.NOT_SENT,
        remedy="See that pcscd works, and that no program keeps a reader busy.",
        transient=True,
    )


def _not_one(
    address: Address, readers: Mapping[str, _Found], meant: Mapping[str, _Found], with_card: Mapping[str, _Found]
) -> DeviceNotFound:
    if not readers:
        return DeviceNotFound(
            "PC/SC has no reader.", remedy="Plug a reader in; pcscd needs its driver, for most libccid."
        )
    serial = _demanded(address)
    what = f" {address.selector!r}" if address.selector and address.serial is None else ""
    what += f" with the serial number {serial!r}" if serial is not None else ""
    listed = partial(_listed, serials=serial is not None)
    if not meant:
        return DeviceNotFound(f"PC/SC has no reader{what}; it has {listed(readers)}.", remedy=_NAME_ONE)
    if with_card:
        return DeviceNotFound(f"PC/SC has several readers{what} with a card: {listed(with_card)}.", remedy=_NAME_ONE)
    return DeviceNotFound(
        f"PC/SC has several readers{what}, and a card is in none of them: {listed(meant)}.",
        remedy=f"Insert the card. {_NAME_ONE}",
    )


def _listed(readers: Mapping[str, _Found], *, serials: bool) -> str:
    return ", ".join(f"{name!r} ({_state(reader, serial=serials)})" for name, reader in readers.items())


def _state(reader: _Found, *, serial: bool) -> str:
    number = f"serial number {reader.serial or 'not known'}" if serial else ""
    use = "in use" if reader.occupancy.in_use else ""
    return ", ".join(filter(None, (number, _CARD[reader.occupancy.card], use)))
