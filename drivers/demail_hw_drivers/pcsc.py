"""Readers of PC/SC, through pcscd or the system's own service: the addresses of the scheme ``pcsc:``.

::

    pcsc:                           the only reader
    pcsc:Identiv*                   the only reader whose name this pattern matches (* ? [])
    pcsc:serial=53692013000000      by serial number, if the reader's driver says it

A ``?`` of a pattern is written %3F. A name that is written out is taken before a pattern.
"""

import contextlib
import dataclasses
import fnmatch
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from demail_hw.address import Address
from demail_hw.errors import ConfigurationError, DeadlineExceeded, DeviceNotFound, Layer, Outcome
from demail_hw.interfaces import Deadline, ReaderInfo, Timeouts
from demail_hw_drivers.pcsc_calls import CallThread
from demail_hw_drivers.pcsc_card import read_serial
from demail_hw_drivers.pcsc_errors import PcscFailure
from demail_hw_drivers.pcsc_monitor import Occupancy, ask, look_at_readers
from demail_hw_drivers.pcsc_reader import PcscReader
from demail_hw_drivers.pcsc_service import PcscService, load_pyscard

__all__ = ["PcscReaders"]

_SCHEME: Final = "pcsc"
_UNKNOWN: Final = Occupancy(card=None, in_use=None)


class PcscReaders:
    """The driver of ``pcsc:`` (:class:`~demail_hw.interfaces.ReaderDriver`).

    ``scard``: what to use in place of the module ``smartcard.scard``.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if pyscard is not installed.
    """

    in_process: Final = False

    def __init__(self, scard: Any = None) -> None:
        self._service = PcscService(load_pyscard() if scard is None else scard)

    def open(self, address: Address, *, timeouts: Timeouts) -> PcscReader:
        """The one reader that the address means. The card is not touched.

        Errors: :class:`~demail_hw.errors.DeviceNotFound` if there is none, or several;
        :class:`~demail_hw.errors.TransportError` without a service, :class:`~demail_hw.errors.DeadlineExceeded`.
        """
        deadline = time.monotonic() + timeouts.connect
        found = self._find(address, deadline)
        if len(found) != 1:
            raise _not_one(address, found or self._find(Address(_SCHEME), deadline))
        return PcscReader(self._service, found[0].name, serial=found[0].serial)

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:
        """The readers that the address can mean. The serial number of one that is in use is not asked for, unless
        the address demands one."""
        found = self._find(address, time.monotonic() + timeouts.connect)
        return [info for info in found if address.reader in (None, info.serial)]

    def _find(self, address: Address, deadline: Deadline) -> Sequence[ReaderInfo]:
        if address.host:
            raise ConfigurationError(
                f"{str(address)!r} names a host, but PC/SC's readers are here.", remedy="Write pcsc:NAME, without //."
            )
        found = ask(CallThread("PC/SC readers"), partial(self._survey, address), deadline=deadline, late=_silent)
        return [info for info in found if address.serial in (None, info.serial)]

    def _survey(self, address: Address) -> Sequence[ReaderInfo]:
        with self._service.context() as context:
            names = _meant(address, self._service.list_readers(context))
            occupancies = look_at_readers(self._service, context, names) if names else {}
            return [self._info(address, context, name, occupancies.get(name, _UNKNOWN)) for name in names]

    def _info(self, address: Address, context: int, name: str, occupancy: Occupancy) -> ReaderInfo:
        demanded = address.serial is not None or address.reader is not None
        serial = self._serial(context, name) if demanded or occupancy.in_use is False else None
        where = dataclasses.replace(address, selector=name)
        return ReaderInfo(str(where), name, serial, card=occupancy.card, in_use=occupancy.in_use)

    def _serial(self, context: int, name: str) -> str | None:
        with contextlib.ExitStack() as stack:
            try:
                reader = stack.enter_context(self._service.reader_alone(context, name))
            except PcscFailure:
                return None
            return read_serial(self._service, reader)


def _meant(address: Address, names: Sequence[str]) -> Sequence[str]:
    selector = address.selector
    if not selector or address.serial is not None:
        return names
    if selector in names:
        return (selector,)
    return [name for name in names if fnmatch.fnmatchcase(name, selector)]


def _silent() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The PC/SC service did not list its readers until the deadline.",
        layer=Layer.READER,
        outcome=Outcome.NOT_SENT,
        remedy="See that pcscd works, and that no program keeps a reader busy.",
        transient=True,
    )


def _not_one(address: Address, readers: Sequence[ReaderInfo]) -> DeviceNotFound:
    if not readers:
        return DeviceNotFound(
            "PC/SC has no reader.", remedy="Plug a reader in; pcscd needs its driver, for most libccid."
        )
    listed = ", ".join(f"{info.name!r}{' (in use)' if info.in_use else ''}" for info in readers)
    what = "one reader" if not address.selector else f"one reader {address.selector!r}"
    return DeviceNotFound(
        f"PC/SC has not exactly {what}; it has {listed}.",
        remedy="Name one of them in the address: pcsc:NAME, with * for a part of it.",
    )
