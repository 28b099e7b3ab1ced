"""Readers on a USB/IP server, spoken to directly: no kernel driver, no root, one round trip for a card command."""

import contextlib
import dataclasses
import errno
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Final

from demail_hw.address import Address, netloc
from demail_hw.ccid.reader import CcidReader
from demail_hw.errors import (
    ConfigurationError,
    DeadlineExceeded,
    DeviceBusy,
    DeviceLost,
    DeviceNotFound,
    HardwareError,
    Outcome,
    ProtocolViolation,
    ServerRefused,
    TransportError,
)
from demail_hw.interfaces import Deadline, ReaderInfo, Timeouts
from demail_hw.usb.descriptors import SMART_CARD_CLASS
from demail_hw.usbip.client import ClientEvent, UsbIpClient
from demail_hw.usbip.events import NEED_DATA, Closed
from demail_hw.usbip.messages import (
    DEFAULT_PORT,
    DevlistEntry,
    OpRepDevlist,
    OpRepImport,
    OpReqDevlist,
    OpReqImport,
    UsbDevice,
    UsbipStatus,
)
from demail_hw_drivers.ccid_reader import reader_over
from demail_hw_drivers.tcp import StopFlag, Wire, open_connection
from demail_hw_drivers.tls_stream import TLS_PORT, TlsEngine, TlsFiles, TlsNames, TlsWire, client_context, tls_refusal
from demail_hw_drivers.usb_selector import require_usb_selector
from demail_hw_drivers.usbip_capture import CaptureFile
from demail_hw_drivers.usbip_serials import SerialMemory
from demail_hw_drivers.usbip_transport import TransportCounters, UsbIpTransport

__all__ = ["TransportCounters", "UsbIpReaders", "UsbIpTransport", "check_address", "connect", "list_devices"]

_TLS_SCHEME: Final = "usbips"
_UNREACHABLE: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL})
_BUSY: Final = frozenset({UsbipStatus.DEV_BUSY, UsbipStatus.NA})
"""An older Linux' usbipd says NA for a device that somebody has."""


class UsbIpReaders:
    """The driver of ``usbip:`` (:class:`~demail_hw.interfaces.ReaderDriver`); of ``usbips:`` too, through TLS, with
    the files that the address names."""

    in_process: Final = False
    can_share: Final = False
    parameters: Final[frozenset[str]] = frozenset({"ca", "capture", "cert", "interface", "key"})

    def open(self, address: Address, *, timeouts: Timeouts) -> CcidReader:
        """Import the one reader that the address means. Errors: as :func:`connect`."""
        return reader_over(connect(address, deadline=time.monotonic() + timeouts.connect))

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:
        """The readers on the server that the address can mean. None is imported, so that no serial numbers are known.

        Servers hide the devices that somebody has; they are not in the list.
        """
        entries = list_devices(address, deadline=time.monotonic() + timeouts.connect)
        return [_info(address, entry) for entry in entries if _is_reader(entry) and _can_mean(address, entry)]


def connect(
    address: Address, *, deadline: Deadline, serials: SerialMemory | None = None, stop: StopFlag | None = None
) -> UsbIpTransport:
    """Import the one device that the address means, and configure it. ``serials``: what one who tries again and again
    found out before, so that it does not take everybody's readers to look at them each time. ``stop``: calls it off.

    Errors: :class:`~demail_hw.errors.DeviceNotFound` (no such host, no such device, or several),
    :class:`~demail_hw.errors.DeviceBusy`, :class:`~demail_hw.errors.ServerRefused`,
    :class:`~demail_hw.errors.ConfigurationError`, or whatever breaks on the way; nothing was sent to a card.
    """
    check_address(address)
    with _opening(address):
        transport = _find(address, deadline, serials or SerialMemory(), stop)
        serial = transport.identity.serial
        if address.reader in (None, serial):
            return transport
        transport.close()
        raise DeviceNotFound(
            f"The reader has the serial number {serial!r}, not {address.reader!r}.",
            remedy="Mend ?reader= in the address, or plug in the right reader.",
            transient=False,
        )


def list_devices(address: Address, *, deadline: Deadline, stop: StopFlag | None = None) -> Sequence[DevlistEntry]:
    """What the server has to import; the selector of the address does not matter."""
    _require_server(address)
    with _opening(address), contextlib.closing(_wire(address, deadline, stop)) as wire:
        reply = _operate(address, wire, _machine(address, wire), OpReqDevlist(), deadline)
        if isinstance(reply, OpRepDevlist) and reply.status == UsbipStatus.OK:
            return reply.devices
        raise _refused("list its devices", reply)


def _find(address: Address, deadline: Deadline, serials: SerialMemory, stop: StopFlag | None) -> UsbIpTransport:
    if address.bus_id is not None:
        return _import(address, address.bus_id, deadline, stop)
    entries = list_devices(address, deadline=deadline, stop=stop)
    if address.serial is not None:
        return _find_serial(address, address.serial, entries, deadline, serials, stop)
    matching = [entry for entry in entries if _is_reader(entry) and _can_mean(address, entry)]
    if len(matching) == 1:
        return _import(address, matching[0].device.bus_id, deadline, stop)
    count = f"{len(matching)} readers" if matching else "no reader"
    raise _not_one(f"{count} {address.selector}".rstrip(), entries)


def _find_serial(
    address: Address,
    serial: str,
    entries: Sequence[DevlistEntry],
    deadline: Deadline,
    serials: SerialMemory,
    stop: StopFlag | None,
) -> UsbIpTransport:
    """A device list has no serial numbers: take the candidates one by one and look.

    Each has its share of the time, and one that does not work hides none behind it.
    """
    broken: HardwareError | None = None
    devices = [entry.device for entry in entries if _is_reader(entry)]
    candidates = serials.candidates(serial, devices, time.monotonic())
    for shares, device in zip(range(len(candidates), 0, -1), candidates, strict=True):
        now = time.monotonic()
        try:
            transport = _look_at(address, device, serials, now + (deadline - now) / shares, stop)
        except (DeviceBusy, DeviceNotFound):
            continue
        except (ConfigurationError, ServerRefused):
            raise
        except HardwareError as error:
            if time.monotonic() >= deadline or (stop is not None and stop.wait(0.0)):
                raise
            broken = error
            continue
        if transport.identity.serial == serial:
            return transport
        transport.close()
    raise _not_one(f"no reader with the serial number {serial!r}", entries) from broken


def _look_at(
    address: Address, device: UsbDevice, serials: SerialMemory, deadline: Deadline, stop: StopFlag | None
) -> UsbIpTransport:
    """Import it, and note which serial number it has; None for one that does not work."""
    try:
        with _opening(address):
            transport = _import(address, device.bus_id, deadline, stop)
    except HardwareError as error:
        if _is_its_own(error):
            serials.note(device, None, time.monotonic())
        raise
    serials.note(device, transport.identity.serial, time.monotonic())
    return transport


def _is_its_own(error: HardwareError) -> bool:
    """Is it the device's fault, and not that of somebody who has it, or of the server?"""
    if isinstance(error, DeviceNotFound):
        return not error.transient
    server_is_gone = isinstance(error, DeviceLost) or isinstance(error.__cause__, OSError)
    return not (server_is_gone or isinstance(error, ConfigurationError | DeviceBusy | ServerRefused))


def _import(address: Address, bus_id: str, deadline: Deadline, stop: StopFlag | None) -> UsbIpTransport:
    wire = _wire(address, deadline, stop)
    try:
        machine = _machine(address, wire)
        reply = _operate(address, wire, machine, OpReqImport(bus_id), deadline)
        if not isinstance(reply, OpRepImport) or reply.device is None:
            raise _refused(f"export device {bus_id}", reply)
        transport = UsbIpTransport(wire, machine, reply.device)
        transport.configure(deadline=deadline, interface=address.interface)
        wire.heed(None)
    except BaseException:
        wire.close()
        raise
    return transport


def check_address(address: Address) -> None:
    """Can it mean a device on a USB server? :class:`~demail_hw.errors.ConfigurationError` if not; nobody is asked."""
    _require_server(address)
    require_usb_selector(address)


def _require_server(address: Address) -> None:
    if not address.host:
        host = address.selector or "HOST"  # without its slashes a host is a selector
        raise ConfigurationError(
            "The address names no USB server.", remedy=f"Write {address.scheme}://{host}/ and what follows."
        )


def _wire(address: Address, deadline: Deadline, stop: StopFlag | None) -> Wire:
    context = _tls_context(address)
    try:
        engine = None if context is None else TlsEngine(context, host=address.host)
        sock = open_connection(address.host, _port(address), deadline=deadline, stop=stop)
    except ValueError as error:  # of the resolver, or of TLS
        raise ConfigurationError(
            f"{address.host!r} is not the name of a machine.", remedy="Check the host in the address."
        ) from error
    wire = Wire(sock) if engine is None else TlsWire(sock, engine)
    wire.heed(stop)
    if isinstance(wire, TlsWire):
        _shake(wire, _server(address), deadline)
    return wire


def _machine(address: Address, wire: Wire) -> UsbIpClient:
    """USB/IP itself, captured if the address says so."""
    if address.capture is None:
        return UsbIpClient()
    return CaptureFile(address.capture).client(wire.ends, f"{address.scheme}://{address.host}/")


def _tls_context(address: Address) -> ssl.SSLContext | None:
    """What TLS offers; None for an address without it."""
    if address.scheme != _TLS_SCHEME:
        if address.cert or address.key or address.ca:
            raise ConfigurationError(
                f"{address.scheme}: knows no TLS, so cert, key and ca mean nothing.",
                remedy="Write usbips://HOST/ for a server that speaks TLS.",
            )
        return None
    if address.key and not address.cert:
        raise ConfigurationError("The address has a TLS key without a certificate.", remedy="Add ?cert=FILE.")
    files = TlsFiles(address.cert, address.key, address.ca) if address.cert else None
    return client_context(files, ca=address.ca)


def _shake(wire: TlsWire, server: str, deadline: Deadline) -> None:
    try:
        if not wire.shake(deadline=deadline):
            raise DeadlineExceeded(f"The USB server {server} did not finish the TLS handshake until the deadline.")
    except BaseException:
        wire.close()
        raise


def _port(address: Address) -> int:
    return address.port or (TLS_PORT if address.scheme == _TLS_SCHEME else DEFAULT_PORT)


def _operate(
    address: Address, wire: Wire, machine: UsbIpClient, request: OpReqDevlist | OpReqImport, deadline: Deadline
) -> ClientEvent:
    """One operation and its reply."""
    if not wire.send(machine.send(request), deadline=deadline):
        raise _silent(address)
    try:
        while (event := machine.next_event()) is NEED_DATA:
            data = wire.receive(deadline=deadline)
            if data is None:
                raise _silent(address)
            machine.receive_data(data)
    except ProtocolViolation as error:
        error.remedy = error.remedy or f"See that a USB/IP server listens at {_server(address)}."
        raise
    if isinstance(event, Closed):
        raise DeviceLost(
            f"The USB server {_server(address)} closed the connection instead of answering.",
            remedy=_HUNG_UP[address.scheme == _TLS_SCHEME],
        )
    return event


_HUNG_UP: Final = {
    False: "See what its log says; a server that speaks TLS does that too: write usbips://HOST:PORT/ for one.",
    True: "See what its log says: it may be full.",
}


def _silent(address: Address) -> DeadlineExceeded:
    return DeadlineExceeded(f"The USB server {_server(address)} did not answer until the deadline.", transient=True)


def _server(address: Address) -> str:
    return netloc(address.host, _port(address))


@contextlib.contextmanager
def _opening(address: Address) -> Iterator[None]:
    """Before a transport is there no card can have been reached; foreign exceptions are mapped."""
    server = _server(address)
    try:
        yield
    except HardwareError as error:
        error.outcome = Outcome.NOT_SENT
        raise
    except socket.gaierror as error:
        raise DeviceNotFound(
            f"The name of the USB server {server} is not known: {error.strerror}.", remedy="Check its name."
        ) from error
    except ssl.SSLError as error:
        raise tls_refusal(error, server, TlsNames.in_table(address.tls_table)) from error
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.ECANCELED:
            raise TransportError(f"The attempt to reach {server} was called off.") from error
        if error.errno in _UNREACHABLE:
            raise TransportError(
                f"There is no USB server at {server}: {why}.", remedy="Check its address, and that it runs."
            ) from error
        raise DeviceLost(f"The connection to {server} broke: {why}.", outcome=Outcome.NOT_SENT) from error


def _refused(what: str, reply: ClientEvent) -> HardwareError:
    status = reply.status if isinstance(reply, OpRepImport | OpRepDevlist) else UsbipStatus.ERROR
    name = UsbipStatus(status).name if status in tuple(UsbipStatus) else "unknown"
    text = f"The USB server refused to {what}: status {status} ({name})."
    if isinstance(reply, OpRepImport) and status in _BUSY:
        return DeviceBusy(text)
    if status == UsbipStatus.NODEV:
        return DeviceNotFound(text, remedy="List the readers of the server: a bus id changes with the socket.")
    return ServerRefused(text)


def _not_one(what: str, entries: Sequence[DevlistEntry]) -> DeviceNotFound:
    listed = ", ".join(
        f"{entry.device.bus_id} ({entry.device.vendor_id:04x}:{entry.device.product_id:04x}"
        f"{'' if _is_reader(entry) else ', no reader'})"
        for entry in entries
    )
    if not listed:
        return DeviceNotFound(
            "The USB server lists no reader; one that somebody uses is not listed.",
            remedy="Wait, or find and stop the other user; see that the reader is plugged in.",
        )
    return DeviceNotFound(
        f"The USB server has {what}; it lists {listed}.",
        remedy="Name one reader in the address, or the card with ?card=ICCSN. A reader that somebody uses is not "
        "listed.",
    )


def _is_reader(entry: DevlistEntry) -> bool:
    return any(interface.interface_class == SMART_CARD_CLASS for interface in entry.interfaces)


def _can_mean(address: Address, entry: DevlistEntry) -> bool:
    device = entry.device
    if address.bus_id is not None:
        return device.bus_id == address.bus_id
    return address.vendor_product in (None, (device.vendor_id, device.product_id))


def _info(address: Address, entry: DevlistEntry) -> ReaderInfo:
    device = entry.device
    where = dataclasses.replace(address, selector=device.bus_id)
    name = f"CCID reader {device.vendor_id:04x}:{device.product_id:04x} at {device.bus_id}"
    return ReaderInfo(str(where), name, serial=None, card=None, in_use=False)
