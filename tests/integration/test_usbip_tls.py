"""USB/IP through mutual TLS 1.3: who is let in, who is told what, and what breaks."""

import contextlib
import logging
import pathlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives import serialization

from demail_hw.address import Address
from demail_hw.errors import (
    ConfigurationError,
    DeadlineExceeded,
    DeviceBusy,
    DeviceLost,
    DeviceNotFound,
    HardwareError,
    Layer,
    Outcome,
    ServerRefused,
    TransportError,
)
from demail_hw.interfaces import Timeouts
from demail_hw.usbip.access import AccessRule
from demail_hw.usbip.messages import OpReqImport
from demail_hw_drivers import usbip_server_connection
from demail_hw_drivers.tls_stream import TlsEngine, TlsFiles, TlsWire, client_context, server_context, tls_refusal
from demail_hw_drivers.usbip_client import UsbIpReaders, connect, list_devices
from demail_hw_drivers.usbip_server import ServerLimits, UsbIpServer
from demail_hw_drivers.usbip_server_access import ClientCertificate
from demail_hw_drivers.usbip_server_audit import AuditAction, AuditLine
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from pin_hunt import random_pin, spellings
from tls_files import TlsAuthority

SECONDS = 20.0


def soon() -> float:
    return time.monotonic() + SECONDS


class House:
    """An authority, a server with two readers, and what its audit says."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.authority = TlsAuthority(folder)
        self.folder = folder
        self.first = self.authority.issue("first", dns="first.example")
        self.second = self.authority.issue("second")
        self.own = self.authority.issue("server", ip="127.0.0.1")
        self.context = server_context(self.own)
        self.lines: list[AuditLine] = []

    def server(self, allowed: dict[str, list[AccessRule]] | None = None, seconds: float = SECONDS) -> UsbIpServer:
        readers = [SimulatedUsbReader(open_card("netkey3")), SimulatedUsbReader(None, serial="2")]
        return UsbIpServer(
            readers,
            port=0,
            context=self.context,
            allowed=allowed,
            limits=ServerLimits(operation_seconds=seconds),
            audit=self.lines.append,
        )


@pytest.fixture
def house(tmp_path: pathlib.Path) -> House:
    return House(tmp_path)


@pytest.fixture
def server(house: House) -> Iterator[UsbIpServer]:
    with house.server() as running:
        yield running


def at(server: UsbIpServer, files: TlsFiles | None, selector: str = "1-1", **other: str | None) -> Address:
    cert, key, ca = files[:3] if files else (None, None, None)
    where = {"ca": ca, **other}
    return Address("usbips", "127.0.0.1", server.port, selector, cert=cert, key=key, **where)


def rules(*texts: str) -> list[AccessRule]:
    return [AccessRule.parse(text) for text in texts]


def certificate_of(files: TlsFiles) -> ClientCertificate:
    pem = pathlib.Path(files.certificate).read_text()
    return ClientCertificate(ssl.PEM_cert_to_DER_cert(pem))


def listed(address: Address) -> list[str]:
    return [entry.device.bus_id for entry in list_devices(address, deadline=soon())]


def test_a_card_through_tls(server: UsbIpServer, house: House) -> None:
    address = at(server, house.first)
    assert Address.parse(str(address)) == address
    reader = UsbIpReaders().open(address, timeouts=Timeouts())
    with (
        contextlib.closing(reader),
        contextlib.closing(reader.connect(deadline=soon())) as card,
        card.transaction(deadline=soon()),
    ):
        assert card.transmit([bytes.fromhex("00a4000c023f00")], deadline=soon()) == b"\x90\x00"
    (info, _) = UsbIpReaders().find(at(server, house.first, ""), timeouts=Timeouts())
    assert Address.parse(info.address).cert == house.first.certificate


def test_each_sees_and_takes_what_it_may(house: House) -> None:
    first = certificate_of(house.first)
    allowed = {"1-1": rules(f"sha256:{first.fingerprint}", "san:other.example"), "1-2": rules("subject:CN=second")}
    with house.server(allowed) as server:
        assert listed(at(server, house.first)) == ["1-1"]
        assert listed(at(server, house.second)) == ["1-2"]
        connect(at(server, house.first, "1-1"), deadline=soon()).close()
        with pytest.raises(DeviceNotFound, match="NODEV"):
            connect(at(server, house.first, "1-2"), deadline=soon())
        refused = house.lines[-1]
    assert (refused.result, refused.subject, refused.certificate) == ("not allowed", "CN=first", first.fingerprint)


def test_a_device_that_no_rule_names_is_for_nobody(house: House) -> None:
    with house.server({"1-2": rules("any")}) as server:
        assert listed(at(server, house.first)) == ["1-2"]


def test_other_rules_take_a_device_away_and_leave_another(house: House) -> None:
    first, second = rules("subject:CN=first"), rules("subject:CN=second")
    with house.server(allowed={"1-1": first, "1-2": first}) as server:
        lost = connect(at(server, house.first), deadline=soon())
        kept = connect(at(server, house.first, "1-2"), deadline=soon())
        server.renew(context=house.context, allowed={"1-1": second, "1-2": [*first, *second]})
        with pytest.raises(DeviceLost):
            lost.bulk_in(64, deadline=soon())
        end = soon()
        while listed(at(server, house.second)) != ["1-1"]:  # it is reset before it is free
            assert time.monotonic() < end
        taken = connect(at(server, house.second), deadline=soon())
        with pytest.raises(DeviceBusy):
            connect(at(server, house.second, "1-2"), deadline=soon())
        for transport in (lost, kept, taken):
            transport.close()
    endings = [line.result for line in house.lines if line.action is AuditAction.RELEASE]
    assert endings[0] == "not allowed any more"


def test_who_has_not_said_what_he_wants_begins_anew(house: House) -> None:
    """He may have been let in by an authority of before."""
    # It would hang up on him by itself later than we wait.
    with house.server(seconds=60 * SECONDS) as server, TlsClient(server, house.first) as early:
        assert listed(at(server, house.first)) == ["1-1", "1-2"]  # so the server has met both
        server.renew(context=house.context, allowed=None)
        assert early.wire.receive(deadline=soon()) == b""


class BrokenRules(dict[str, list[AccessRule]]):
    """Rules that cannot be looked at."""

    def get(self, key: str, default: object = None) -> NoReturn:  # type: ignore[override]
        raise LookupError(key)


def test_whom_rules_cannot_be_asked_about_loses_his_device_and_nobody_is_skipped(house: House) -> None:
    with house.server() as server:
        sessions = [connect(at(server, house.first, bus_id), deadline=soon()) for bus_id in ("1-1", "1-2")]
        with pytest.raises(LookupError):
            server.renew(context=house.context, allowed=BrokenRules())
        for session in sessions:
            with pytest.raises(DeviceLost):
                session.bulk_in(64, deadline=soon())
            session.close()


def test_a_server_gives_no_ticket(house: House) -> None:
    """A session that is resumed shows no certificate."""
    client, server = (
        TlsEngine(client_context(house.first), host="127.0.0.1"),
        TlsEngine(house.context, server_side=True),
    )
    client.shake()
    server.shake(client.to_send())
    assert client.shake(server.to_send())
    assert server.shake(client.to_send())
    assert server.to_send() == b""


def test_goodbye_to_a_peer_that_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() is a reset
    peer.close()
    engine = TlsEngine(client_context(None), host="127.0.0.1")
    engine.shake()
    with contextlib.closing(TlsWire(sock, engine)) as wire:
        wire.finish(SECONDS)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "refused the client certificate: unknown ca"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "broke: tlsv1 alert internal error"),
    ],
)
def test_an_alert_is_about_the_certificate_or_not(reason: str, said: str) -> None:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    assert said in tls_refusal(error, "usb.example").message


@pytest.mark.parametrize("secured", [False, True])
def test_whether_a_server_speaks_tls_does_not_change(house: House, secured: bool) -> None:
    server = house.server() if secured else UsbIpServer([SimulatedUsbReader(None)], port=0)
    with server, pytest.raises(ValueError, match="does not change"):
        server.renew(context=None if secured else house.context, allowed=None)
    with pytest.raises(ValueError, match="needs TLS"):
        server.renew(context=None, allowed={"1-1": rules("any")})


def test_an_allow_list_needs_tls() -> None:
    with pytest.raises(ValueError, match="TLS"):
        UsbIpServer([SimulatedUsbReader(None)], allowed={})


def refusal(kind: type[HardwareError], address: Address) -> HardwareError:
    with pytest.raises(kind) as caught:
        connect(address, deadline=soon())
    error = caught.value
    assert (error.outcome, error.transient) == (Outcome.NOT_SENT, False)
    assert error.remedy
    return error


def test_no_certificate(server: UsbIpServer, house: House) -> None:
    error = refusal(ServerRefused, at(server, None, ca=house.first.ca))
    assert error.layer is Layer.TLS
    assert "demands a client certificate" in error.message
    server.close()
    assert server.counters.tls_failures == 1


def test_a_group_may_have_been_given_the_key(house: House) -> None:
    pathlib.Path(house.first.key or "").chmod(0o640)
    assert client_context(house.first)


def test_a_certificate_of_another_authority(server: UsbIpServer, house: House, tmp_path: pathlib.Path) -> None:
    stranger = TlsAuthority(tmp_path, "stranger").issue("first-too")._replace(ca=house.first.ca)
    error = refusal(ServerRefused, at(server, stranger))
    assert "refused the client certificate: unknown ca" in error.message
    assert "extendedKeyUsage clientAuth" in error.remedy


def test_a_certificate_that_is_over(server: UsbIpServer, house: House, caplog: pytest.LogCaptureFixture) -> None:
    error = refusal(ServerRefused, at(server, house.authority.issue("old", days=-1)))
    assert "certificate expired" in error.message
    server.close()
    assert caplog.messages[-1].endswith("refused by TLS: the client's certificate: certificate has expired")


def test_a_server_of_another_authority(server: UsbIpServer, house: House, tmp_path: pathlib.Path) -> None:
    other = TlsAuthority(tmp_path, "stranger").ca
    error = refusal(TransportError, at(server, house.first._replace(ca=other)))
    assert "refused here" in error.message


def test_a_server_of_another_name(server: UsbIpServer, house: House) -> None:
    address = at(server, house.first)
    error = refusal(TransportError, Address("usbips", "localhost", server.port, "1-1", **_files(address)))
    assert "refused here" in error.message


def _files(address: Address) -> dict[str, str | None]:
    return {"cert": address.cert, "key": address.key, "ca": address.ca}


def test_a_server_without_tls(house: House) -> None:
    with (
        UsbIpServer([SimulatedUsbReader(None)], port=0) as plain,
        pytest.raises(TransportError, match="hung up before TLS") as caught,
    ):
        connect(at(plain, house.first), deadline=soon())
    assert (caught.value.outcome, caught.value.layer) == (Outcome.NOT_SENT, Layer.TLS)


def test_something_else_than_tls(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_say_hello, args=(listener,))
        thread.start()
        address = Address("usbips", "127.0.0.1", listener.getsockname()[1], "1-1", ca=house.first.ca)
        error = refusal(TransportError, address)
        thread.join(SECONDS)
    assert "does not speak TLS" in error.message


def _say_hello(listener: socket.socket) -> None:
    with listener.accept()[0] as sock:
        sock.sendall(b"220 mail.example ESMTP\r\n")
        while sock.recv(4096):
            pass


def test_a_client_without_tls(server: UsbIpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as sock:
        sock.sendall(OpReqImport("1-1").encode())
        told = b""
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(4096):
                told += data
    assert told == b""
    server.close()
    assert (server.counters.imports, server.counters.tls_failures) == (0, 1)


def test_a_client_of_tls_1_2(server: UsbIpServer, house: House) -> None:
    context = client_context(house.first)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock, server_hostname="127.0.0.1")


def test_a_server_that_never_shakes_hands(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("usbips", "127.0.0.1", listener.getsockname()[1], "1-1", ca=house.first.ca)
        with pytest.raises(DeadlineExceeded) as caught:
            connect(address, deadline=time.monotonic() + 0.1)
    assert caught.value.outcome is Outcome.NOT_SENT


def test_a_client_that_never_shakes_hands(house: House) -> None:
    with house.server(seconds=0.2) as server, socket.create_connection(("127.0.0.1", server.port), SECONDS) as sock:
        assert sock.recv(1) == b""


def test_alerts_and_garbage_in_a_session(house: House, server: UsbIpServer) -> None:
    """What is no record ends the session, on either side, and costs nobody else anything."""
    with TlsClient(server, house.first) as client:
        client.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with contextlib.suppress(OSError):
            while client.sock.recv(4096):
                pass
    assert listed(at(server, house.second)) == ["1-1", "1-2"]


class TlsClient:
    """A wire that has shaken hands and does nothing by itself."""

    def __init__(self, server: UsbIpServer, files: TlsFiles) -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port), SECONDS)
        self.wire = TlsWire(self.sock, TlsEngine(client_context(files), host="127.0.0.1"))
        assert self.wire.shake(deadline=soon())

    def __enter__(self) -> "TlsClient":
        return self

    def __exit__(self, *exc: object) -> None:
        self.wire.close()


def test_a_server_that_stops_is_noticed(house: House) -> None:
    with house.server() as server:
        transport = connect(at(server, house.first), deadline=soon())
        server.close()
        with pytest.raises(DeviceLost):
            transport.bulk_in(64, deadline=soon())
        transport.close()


@pytest.fixture
def silent_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host answers: the cable is cut. (With a real cut: tests/real/test_usbip_half_open.py.)"""
    monkeypatch.setattr(usbip_server_connection, "peer_answers", lambda sock: False)


def test_a_living_session_stays_with_whoever_has_it(server: UsbIpServer, house: House) -> None:
    with contextlib.closing(connect(at(server, house.first), deadline=soon())) as holder:
        for files in (house.first, house.second):
            with pytest.raises(DeviceBusy):
                connect(at(server, files), deadline=soon())
        assert holder.control(bytes.fromhex("8006000100001200"), deadline=soon())
    assert server.counters.taken_over == 0


@pytest.mark.usefixtures("silent_holder")
def test_a_dead_session_goes_to_its_own_successor_and_to_nobody_else(server: UsbIpServer, house: House) -> None:
    with contextlib.closing(connect(at(server, house.first), deadline=soon())):
        with pytest.raises(DeviceBusy):
            connect(at(server, house.second), deadline=soon())
        connect(at(server, house.first), deadline=soon()).close()

    assert server.counters.taken_over == 1
    assert next(line.result for line in house.lines if line.action.value == "release") == "taken over"


@pytest.mark.usefixtures("silent_holder")
def test_without_tls_nobody_takes_over() -> None:
    with UsbIpServer([SimulatedUsbReader(None)], port=0) as plain:
        address = Address("usbip", "127.0.0.1", plain.port, "1-1")
        with contextlib.closing(connect(address, deadline=soon())), pytest.raises(DeviceBusy):
            connect(address, deadline=soon())


def test_addresses_whose_files_make_no_sense(house: House) -> None:
    with pytest.raises(ConfigurationError, match="knows no TLS"):
        connect(Address("usbip", "127.0.0.1", 1, "1-1", ca=house.first.ca), deadline=soon())
    with pytest.raises(ConfigurationError, match="without a certificate"):
        connect(Address("usbips", "127.0.0.1", 1, "1-1", key=house.first.key), deadline=soon())


def _missing(house: House) -> TlsFiles:
    return house.first._replace(certificate=str(house.folder / "nothing.pem"))


def _no_pem(house: House) -> TlsFiles:
    path = house.folder / "text.pem"
    path.write_text("no certificate")
    return TlsFiles(str(path), house.first.key, house.first.ca)


def _wrong_key(house: House) -> TlsFiles:
    return house.first._replace(key=house.second.key)


def _no_key(house: House) -> TlsFiles:
    return house.first._replace(key=None)


def _broken_certificate(house: House) -> TlsFiles:
    path = house.folder / "broken.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return house.first._replace(certificate=str(path))


def _open_key(house: House) -> TlsFiles:
    pathlib.Path(house.first.key or "").chmod(0o644)
    return house.first


def _encrypted(house: House) -> TlsFiles:
    assert house.first.key is not None
    key = serialization.load_pem_private_key(pathlib.Path(house.first.key).read_bytes(), None)
    path = house.folder / "encrypted.key"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    path.chmod(0o600)
    return house.first._replace(key=str(path))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_missing, "nothing.pem cannot be used: No such file"),
        (_no_pem, "text.pem holds no certificate"),
        (_no_key, "first.pem holds no key"),
        (_broken_certificate, "broken.pem, or its key .*first.key, cannot be used: "),
        (_wrong_key, "first.pem, or its key .*second.key, cannot be used: key values mismatch"),
        (_encrypted, "encrypted.key is encrypted"),
        (_open_key, r"first.key has mode 0644: others may read it"),
    ],
)
def test_files_that_cannot_be_used(house: House, spoil: Callable[[House], TlsFiles], told: str) -> None:
    for context in (client_context, server_context):
        with pytest.raises(ConfigurationError, match=told) as caught:
            context(spoil(house))
        assert pathlib.Path(caught.value.file or "").parent == house.folder
        assert caught.value.remedy


def test_a_certificate_that_is_revoked(house: House) -> None:
    house.context = server_context(house.own._replace(crl=(house.authority.revoke(house.first.certificate),)))
    with house.server() as server:
        with pytest.raises(ServerRefused, match="certificate revoked"):
            connect(at(server, house.first), deadline=soon())
        connect(at(server, house.second), deadline=soon()).close()


def test_a_list_of_yesterday_lets_nobody_in(house: House) -> None:
    house.context = server_context(house.own._replace(crl=(house.authority.revoke(days=-1),)))
    with house.server() as server, pytest.raises(TransportError):
        connect(at(server, house.first), deadline=soon())


@pytest.mark.parametrize("let_in", [True, False])
def test_an_authority_that_is_revoked(house: House, tmp_path_factory: pytest.TempPathFactory, let_in: bool) -> None:
    below = TlsAuthority(tmp_path_factory.mktemp("below"), "below", above=house.authority)
    client = below.issue("client")
    chain = pathlib.Path(client.certificate)
    chain.write_bytes(chain.read_bytes() + pathlib.Path(below.ca).read_bytes())
    lists = (house.authority.revoke(*([] if let_in else [below.ca])), below.revoke())

    house.context = server_context(house.own._replace(crl=lists))
    with house.server() as server:
        address = at(server, client._replace(ca=house.authority.ca))
        with contextlib.nullcontext() if let_in else pytest.raises(ServerRefused, match="certificate revoked"):
            connect(address, deadline=soon()).close()


@pytest.mark.parametrize("name", ["nothing.pem", "authority.pem", "text.pem"])
def test_a_list_that_is_none(house: House, name: str) -> None:
    _no_pem(house)
    path = str(house.folder / name)
    with pytest.raises(ConfigurationError, match=name):
        server_context(house.own._replace(crl=(path,)))


def test_an_authority_behind_the_list_is_none(house: House) -> None:
    crl = pathlib.Path(house.authority.revoke())
    crl.write_bytes(crl.read_bytes() + (house.folder / "authority.pem").read_bytes())
    with pytest.raises(ConfigurationError, match="alone"):
        server_context(house.own._replace(crl=(str(crl),)))


def test_files_that_are_credentials(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(house.folder))

    def credentials(files: TlsFiles) -> TlsFiles:
        return TlsFiles(*(f"credential:{pathlib.Path(path or '').name}" for path in files[:3]))

    house.context = server_context(credentials(house.own))
    with house.server() as server:
        connect(at(server, credentials(house.first)), deadline=soon()).close()


@pytest.mark.parametrize(
    ("name", "folder", "told"),
    [("me.key", "", "no credentials"), ("../me.key", "/run", "not the name"), ("me.key", "/run", "/run/me.key")],
)
def test_credentials_that_are_not_there(
    house: House, monkeypatch: pytest.MonkeyPatch, name: str, folder: str, told: str
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", folder)
    with pytest.raises(ConfigurationError, match=told):
        client_context(house.first._replace(key=f"credential:{name}"))


def test_a_server_needs_an_authority(house: House) -> None:
    with pytest.raises(ValueError):
        server_context(house.first._replace(ca=None))
    with pytest.raises(ConfigurationError):
        server_context(house.first._replace(ca=str(house.folder / "nothing.pem")))


class _Recorder:
    """In the place of OpenSSL: keeps what it was given, and does not copy it."""

    def __init__(self) -> None:
        self.seen: list[memoryview] = []
        self.told = b""

    def write(self, data: memoryview) -> int:
        self.seen.append(data)
        self.told += bytes(data)
        return len(data)


def test_the_joined_copy_is_wiped(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TlsEngine(client_context(house.first), host="127.0.0.1")
    recorder = _Recorder()
    monkeypatch.setattr(engine, "_tls", recorder)
    engine.encrypt([b"header", memoryview(b"123456"), bytes(1 << 14)])

    assert recorder.told == b"header123456" + bytes(1 << 14)
    assert len(recorder.seen) == 2
    assert not any(map(any, recorder.seen))


def test_a_pin_is_in_no_log_and_no_audit(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pin = random_pin()
    command = bytes.fromhex("00200000") + bytes([len(pin)]) + pin.encode()
    with house.server() as server:
        reader = UsbIpReaders().open(at(server, house.first), timeouts=Timeouts())
        with (
            contextlib.closing(reader),
            contextlib.closing(reader.connect(deadline=soon())) as card,
            card.transaction(deadline=soon()),
        ):
            assert card.transmit([command], deadline=soon())[:1] == b"\x63"
    texts = {
        "log": "\n".join(record.getMessage() for record in caplog.records).encode(),
        "audit": "\n".join(line.as_json() for line in house.lines).encode(),
    }
    assert b"granted" in texts["audit"]
    for text in texts.values():
        assert not [name for name, form in spellings(pin).items() if form in text]
