"""One TCP connection to a USB/IP server, from accept to close: TLS, one operation, and perhaps a session."""

import contextlib
import dataclasses
import logging
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Final

from demail_hw.address import netloc
from demail_hw.errors import ProtocolViolation
from demail_hw.usbip.access import AllowList, may_have
from demail_hw.usbip.events import NEED_DATA
from demail_hw.usbip.messages import OpRepDevlist, OpRepImport, OpReqDevlist, OpReqImport, UsbipStatus
from demail_hw.usbip.server import UsbIpServerConnection
from demail_hw_drivers.tcp import peer_answers, timeval, tune
from demail_hw_drivers.usbip_capture import CaptureFile
from demail_hw_drivers.usbip_server_access import ClientCertificate
from demail_hw_drivers.usbip_server_audit import AuditAction, AuditLine, AuditSink, log_audit, now
from demail_hw_drivers.usbip_server_counters import NOTHING, ServerCounters, ServerLimits, network_of
from demail_hw_drivers.usbip_server_exports import Export
from demail_hw_drivers.usbip_server_session import Session
from demail_hw_drivers.usbip_server_stream import PlainStream, ServerStream, TlsServerStream, accept_tls

__all__ = ["Connection", "Service"]

_LOG = logging.getLogger(__name__)

_TAKE_OVER_SECONDS: Final = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """What all connections of a server share. ``allowed``: who may have which device; ``None`` lets everybody.
    ``capture``: where what they carry goes."""

    exports: Mapping[str, Export]
    limits: ServerLimits = dataclasses.field(default_factory=ServerLimits)
    context: ssl.SSLContext | None = None
    allowed: AllowList | None = None
    audit: AuditSink = log_audit
    capture: CaptureFile | None = None

    def machine(self, sock: socket.socket, peer: tuple[str, int]) -> UsbIpServerConnection:
        """USB/IP itself, captured if the server is."""
        if self.capture is None:
            return UsbIpServerConnection()
        return self.capture.server((sock.getsockname()[:2], peer))


def _why(error: ssl.SSLError) -> str:
    """OpenSSL's word; of a certificate, what is wrong with it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate: {error.verify_message}"
    return error.reason or error.strerror or type(error).__name__


class Connection:
    """A peer, and what it does. It is the :class:`~demail_hw_drivers.usbip_server_exports.Holder` of its device."""

    def __init__(self, sock: socket.socket, address: tuple[str, int], service: Service) -> None:
        self._sock = sock
        self.network = network_of(address[0])
        self._peer = netloc(*address)
        self._service = service
        self._stream: ServerStream = PlainStream(sock)
        self._machine = service.machine(sock, address)
        self._certificate: ClientCertificate | None = None
        self._session: Session | None = None
        self._own = ServerCounters(connections=1)
        self._ending = ""
        self._wanted: str | None = None

    @property
    def counters(self) -> ServerCounters:
        """What it did so far."""
        session = self._session
        return self._own if session is None else self._own.plus(session.counters)

    @property
    def identity(self) -> str | None:
        """The fingerprint of the client's certificate. Without TLS nobody has one: an address may be that of many
        (one host's programs, or a network behind a router)."""
        return None if self._certificate is None else self._certificate.fingerprint

    def answers(self) -> bool:
        """Is its host still there?"""
        try:
            return peer_answers(self._sock)
        except OSError:
            return False

    def take_away(self) -> None:
        """End its session, for its successor."""
        self._end_because("taken over")

    def renew(self, service: Service) -> None:
        """Other rules. A session stays if they still let it; whatever has not come so far begins anew: it may have
        been let in by an authority of before."""
        self._service = service
        stays = False
        try:
            stays = self._wanted is not None and may_have(self._certificate, self._wanted, service.allowed)
        finally:  # also if the rules could not be looked at
            if not stays:
                self._end_because("not allowed any more")

    def hang_up(self) -> None:
        """End it from any thread, because the server stops; its own thread cleans up."""
        self._end_because("server stopped")

    def _end_because(self, why: str) -> None:
        self._ending = self._ending or why
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Everything, in a thread of its own. Never raises."""
        with self._sock, self._peer_errors():
            tune(self._sock)
            deadline = time.monotonic() + self._service.limits.operation_seconds
            if self._service.context is not None:
                self._begin_tls(self._service.context, deadline)
            match self._operation(deadline):
                case OpReqDevlist():
                    self._list()
                case OpReqImport(bus_id):
                    self._import(bus_id)
                case None:
                    pass

    @contextlib.contextmanager
    def _peer_errors(self) -> Iterator[None]:
        """What a peer does wrong ends its own connection, and nothing else."""
        try:
            yield
        except ProtocolViolation as error:
            self._count(violations=1)
            _LOG.warning("%s: %s", self._peer, error.message)
        except ssl.SSLError as error:
            self._count(tls_failures=1)
            _LOG.warning("%s: refused by TLS: %s", self._peer, _why(error))
        except OSError as error:
            _LOG.debug("%s: connection lost: %s", self._peer, error)

    def _count(self, **more: int) -> None:
        self._own = self._own.plus(ServerCounters(**more))

    def _begin_tls(self, context: ssl.SSLContext, deadline: float) -> None:
        engine = accept_tls(self._sock, context, deadline=deadline)
        self._stream = TlsServerStream(self._sock, engine)
        self._certificate = ClientCertificate(engine.certificate or b"")

    def _operation(self, deadline: float) -> OpReqDevlist | OpReqImport | None:
        """The request, if it comes whole and in time."""
        while (event := self._machine.next_event()) is NEED_DATA:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._sock.settimeout(left)
            data = self._stream.receive()
            if data is not None:
                self._machine.receive_data(data)
        self._sock.settimeout(None)
        patience = timeval(self._service.limits.send_seconds)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        return event if isinstance(event, OpReqDevlist | OpReqImport) else None

    def _reply(self, reply: OpRepDevlist | OpRepImport) -> None:
        self._stream.send(self._machine.send(reply))

    def _may_have(self, export: Export) -> bool:
        return may_have(self._certificate, export.bus_id, self._service.allowed)

    def _list(self) -> None:
        """The devices that are free, of those that the peer may have."""
        self._count(device_lists=1)
        exports = self._service.exports.values()
        self._reply(OpRepDevlist(tuple(e.entry for e in exports if not e.busy and self._may_have(e))))

    def _import(self, bus_id: str) -> None:
        self._wanted = bus_id  # before the rules are looked at: renew() looks the other way round
        export = self._service.exports.get(bus_id)
        if export is None:
            self._refuse(bus_id, UsbipStatus.NODEV, "no such device")
        elif not self._may_have(export):
            # As if it were not there: whoever may not have a device need not know of it.
            self._refuse(bus_id, UsbipStatus.NODEV, "not allowed")
        elif not self._claim(export):
            self._refuse(bus_id, UsbipStatus.DEV_BUSY, "busy")
        else:
            try:
                self._export(export)
            finally:
                export.release()

    def _claim(self, export: Export) -> bool:
        """Have the device, if need be from a dead session of the same identity.

        A living one keeps it, whoever comes: its own identity too, because two programs with one certificate would
        take it from each other for ever.
        """
        if export.claim(self):
            return True
        holder = export.holder
        if holder is None or self.identity is None or holder.identity != self.identity or holder.answers():
            return False
        holder.take_away()
        if not export.claim(self, seconds=_TAKE_OVER_SECONDS):
            return False
        self._count(taken_over=1)
        return True

    def _refuse(self, bus_id: str, status: UsbipStatus, why: str) -> None:
        self._count(refused=1)
        self._audit(AuditAction.IMPORT, bus_id, "", why)
        self._reply(OpRepImport(None, status))

    def _export(self, export: Export) -> None:
        session = self._session = Session(
            self._stream, self._machine, export, self._service.limits, lambda: self._end_because("send failed")
        )
        begun = time.monotonic()
        serial = export.device.serial
        self._audit(AuditAction.IMPORT, export.bus_id, serial, "granted")
        try:
            self._reply(OpRepImport(export.usb_device))
            session.run()
            self._ending = self._ending or "closed by the client"
        except ProtocolViolation:
            self._ending = self._ending or "protocol violation"
            raise
        finally:
            session.end()
            ending, seconds = self._ending or "connection lost", time.monotonic() - begun
            self._audit(AuditAction.RELEASE, export.bus_id, serial, ending, session.counters, seconds)

    def _audit(
        self,
        action: AuditAction,
        bus_id: str,
        serial: str,
        result: str,
        done: ServerCounters = NOTHING,
        seconds: float = 0.0,
    ) -> None:
        shown = self._certificate
        who = (self._peer, shown.fingerprint, shown.subject) if shown else (self._peer, "", "")
        what = (bus_id, serial, result)
        line = AuditLine(now(), action, *who, *what, done.urbs, done.bytes_in, done.bytes_out, seconds)
        try:
            self._service.audit(line)
        except OSError as error:
            _LOG.error("an audit line was lost (%s): %s", error.strerror or error, line)
