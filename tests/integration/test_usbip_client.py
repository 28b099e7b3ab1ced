"""Finding, importing and using readers of our own USB/IP server over TCP."""

import contextlib
import dataclasses
import logging
import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest

from demail_hw.address import Address
from demail_hw.errors import (
    ConfigurationError,
    DeviceBusy,
    DeviceLost,
    DeviceNotFound,
    HardwareError,
    Outcome,
    TransferStalled,
    TransportError,
)
from demail_hw.interfaces import ExportedDevice, Timeouts, Transfer, TransferResult, UsbTransport
from demail_hw.registry import open_reader, reader_driver
from demail_hw.usb.descriptors import (
    ConfigurationDescriptor,
    DescriptorType,
    DeviceDescriptor,
    InterfaceDescriptor,
)
from demail_hw.usb.setup import StandardRequest
from demail_hw.usbip.messages import UrbStatus
from demail_hw_drivers.tcp import Wire
from demail_hw_drivers.usbip_client import UsbIpReaders, connect, list_devices
from demail_hw_drivers.usbip_serials import SerialMemory
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_drivers.usbip_transport import UsbIpTransport
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import UTRUST_2700F, SimulatedUsbReader
from demail_hw_simulators.composite_reader import CompositeReader
from demail_hw_simulators.reader_profiles import reader_profile

SECONDS = 20.0
GET_SLOT_STATUS = bytes.fromhex("65 00000000 00 07 000000")


class Keyboard:
    """A USB device that is no reader."""

    device_descriptor = DeviceDescriptor(0x0200, 0, 0, 0, 8, 0x046D, 0xC31C, 0x0100, 0, 0, 0, 1).encode()
    configuration_descriptor = ConfigurationDescriptor(
        1, 0, 0xA0, 50, (InterfaceDescriptor(0, 0, 3, 1, 1, 0),)
    ).encode()
    serial = ""
    speed = 1

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        descriptor = self.device_descriptor if transfer.setup[3] == 1 else self.configuration_descriptor
        complete(TransferResult(UrbStatus.OK, descriptor[: transfer.length]))

    def cancel(self, transfer: Transfer) -> bool:
        return False

    def reset(self) -> None:
        pass


@pytest.fixture
def server() -> Iterator[UsbIpServer]:
    devices: dict[str, ExportedDevice] = {
        "1-1": SimulatedUsbReader(None, serial="53692013000001"),
        "1-2": SimulatedUsbReader(None, serial="53692013000002"),
        "2-1": Keyboard(),
    }
    with UsbIpServer(devices, port=0) as running:
        yield running


@pytest.fixture
def reader() -> SimulatedUsbReader:
    return SimulatedUsbReader(None)


@pytest.fixture
def lone(reader: SimulatedUsbReader) -> Iterator[UsbIpServer]:
    with UsbIpServer({"1-1": reader, "2-1": Keyboard()}, port=0) as running:
        yield running


def at(server: UsbIpServer, selector: str = "") -> Address:
    return Address.parse(f"usbip://127.0.0.1:{server.port}/{selector}")


def soon() -> float:
    return time.monotonic() + SECONDS


@contextlib.contextmanager
def connected(address: Address) -> Iterator[UsbIpTransport]:
    with contextlib.closing(connect(address, deadline=soon())) as transport:
        yield transport


@pytest.fixture
def dual() -> Iterator[UsbIpServer]:
    """A card at the second interface alone."""
    contact = SimulatedUsbReader(None, profile=reader_profile("utrust_4701_f"))
    contactless = SimulatedUsbReader(open_card("netkey3"), profile=reader_profile("utrust_4701_f_cl"))
    with UsbIpServer([CompositeReader(contact, contactless)], port=0) as running:
        yield running


@pytest.mark.parametrize(
    ("which", "ifsd", "card"), [("", 254, False), ("?interface=0", 254, False), ("?interface=1", 1024, True)]
)
def test_the_interface_of_a_device_with_several(dual: UsbIpServer, which: str, ifsd: int, card: bool) -> None:
    with contextlib.closing(UsbIpReaders().open(at(dual, which), timeouts=Timeouts())) as reader:
        assert reader.descriptor.max_ifsd == ifsd
        assert reader.card_present(deadline=soon()) is card
        if card:
            connection = reader.connect(deadline=soon())
            with connection.transaction(deadline=soon()):
                select = bytes.fromhex("00a4000c023f00")
                assert connection.transmit((select,), deadline=soon()) == b"\x90\x00"


def test_an_interface_that_is_no_reader(dual: UsbIpServer) -> None:
    with pytest.raises(DeviceNotFound, match=r"at its interface 2; it is at 0, 1\.") as caught:
        open_reader(f"{at(dual)}?interface=2")
    assert "?interface=" in caught.value.remedy
    assert not caught.value.transient


class AlternateSetting(SimulatedUsbReader):
    """Whose interface has a second setting, with pipes of its own that are not there until it is chosen."""

    def __init__(self) -> None:
        super().__init__(None)
        shown = ConfigurationDescriptor.decode(self.configuration_descriptor)
        first = shown.interfaces[0]
        pipes = tuple(dataclasses.replace(each, address=each.address + 4) for each in first.endpoints)
        second = dataclasses.replace(first, alternate_setting=1, endpoints=pipes)
        self._both = dataclasses.replace(shown, interfaces=(first, second)).encode()

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        if transfer.setup[1:4] == bytes((StandardRequest.GET_DESCRIPTOR, 0, DescriptorType.CONFIGURATION)):
            complete(TransferResult(UrbStatus.OK, self._both[: transfer.length]))
        else:
            super().submit(transfer, complete)


def test_the_pipes_are_those_of_the_first_setting() -> None:
    with UsbIpServer([AlternateSetting()], port=0) as server, connected(at(server)) as transport:
        assert transport.exchange((GET_SLOT_STATUS,), 64, deadline=soon())[0] == 0x81


@pytest.mark.parametrize(
    ("selector", "serial"),
    [
        ("serial=53692013000001", "53692013000001"),
        ("serial=53692013000002", "53692013000002"),
        ("1-2", "53692013000002"),
        ("1-2?reader=53692013000002", "53692013000002"),
    ],
)
def test_a_reader_by_name(server: UsbIpServer, selector: str, serial: str) -> None:
    with connected(at(server, selector)) as transport:
        assert transport.identity.serial == serial
        assert transport.identity.product == "CLOUD 2700 F Smart Card Reader"
        assert transport.identity.version == 0x0003


@pytest.mark.parametrize("selector", ["", "04e6:5710", "04E6:5710"])
def test_the_only_reader(lone: UsbIpServer, selector: str) -> None:
    with connected(at(lone, selector)) as transport:
        assert transport.identity.bus_id == "1-1"


@pytest.mark.parametrize(
    ("selector", "kind", "text"),
    [
        ("", DeviceNotFound, "2 readers; it lists 1-1 (04e6:5710), 1-2 (04e6:5710), 2-1 (046d:c31c, no reader)"),
        ("04e6:5710", DeviceNotFound, "2 readers"),
        ("04e6:5711", DeviceNotFound, "no reader 04e6:5711"),
        ("serial=1", DeviceNotFound, "no reader with the serial number '1'"),
        ("9-9", DeviceNotFound, "NODEV"),
        ("2-1", DeviceNotFound, "is no CCID reader"),
        ("1-1?reader=53692013000002", DeviceNotFound, "53692013000001"),
        ("whatever", ConfigurationError, "whatever"),
    ],
)
def test_no_reader_of_that_name(server: UsbIpServer, selector: str, kind: type[HardwareError], text: str) -> None:
    with pytest.raises(kind) as caught:
        connect(at(server, selector), deadline=soon())

    assert text in str(caught.value)
    assert caught.value.outcome is Outcome.NOT_SENT


def test_a_reader_that_somebody_has(server: UsbIpServer) -> None:
    with connected(at(server, "1-1")):
        with pytest.raises(DeviceBusy) as caught:
            connect(at(server, "1-1"), deadline=soon())
        assert caught.value.outcome is Outcome.NOT_SENT
        with connected(at(server)) as other:
            assert other.identity.bus_id == "1-2"


def test_a_closed_reader_can_be_opened_at_once(lone: UsbIpServer) -> None:
    for _ in range(20):
        with connected(at(lone)) as transport:
            assert len(transport.exchange([GET_SLOT_STATUS], 1034, deadline=soon())) == 10
    assert lone.counters.imports == 20


def test_no_server_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransportError, match=re.escape(f"no USB server at 127.0.0.1:{port}")):
        connect(Address.parse(f"usbip://127.0.0.1:{port}/"), deadline=soon())


def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(DeviceNotFound, match=r"usb-server\.example:3240"):
        connect(Address.parse("usbip://usb-server.example/"), deadline=soon())


@pytest.mark.parametrize("host", ["usb..server", "a" * 64 + ".example", ".example"])
@pytest.mark.parametrize("scheme", ["usbip", "usbips"])
def test_what_no_machine_can_be_called(scheme: str, host: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the name of a machine"):
        connect(Address(scheme, host), deadline=soon())


class Broken(SimulatedUsbReader):
    """Answers no transfer, or each by an error."""

    def __init__(self, status: UrbStatus | None) -> None:
        super().__init__(None, serial="broken")
        self._status = status

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        if self._status is not None:
            complete(TransferResult(self._status))

    def cancel(self, transfer: Transfer) -> bool:
        return self._status is None


@pytest.mark.parametrize("status", [None, UrbStatus.EPROTO, UrbStatus.EPIPE], ids=str)
def test_a_broken_reader_hides_none_behind_it(status: UrbStatus | None) -> None:
    with UsbIpServer([Broken(status), SimulatedUsbReader(None, serial="1")], port=0) as server:
        transport = connect(at(server, "serial=1"), deadline=time.monotonic() + 2)
        transport.close()
        assert transport.identity.serial == "1"
    with UsbIpServer([Broken(status), SimulatedUsbReader(None, serial="1")], port=0) as server:
        with pytest.raises(DeviceNotFound, match="no reader with the serial number '2'") as caught:
            connect(at(server, "serial=2"), deadline=time.monotonic() + 4)
        assert isinstance(caught.value.__cause__, HardwareError)  # the broken one is told of


def test_what_was_looked_at_is_not_looked_at_again() -> None:
    broken, serials = Broken(UrbStatus.EPROTO), SerialMemory()
    with UsbIpServer([broken, SimulatedUsbReader(None, serial="1")], port=0) as server:
        imports = []
        for serial in ("2", "2", "1", "1"):
            before = server.counters.imports
            with contextlib.suppress(DeviceNotFound):
                connect(at(server, f"serial={serial}"), deadline=soon(), serials=serials).close()
            imports.append(server.counters.imports - before)
    assert imports == [2, 0, 1, 1]


@pytest.mark.parametrize(
    ("address", "remedy"),
    [("usbip:", "Write usbip://HOST/"), ("usbip:127.0.0.1", "Write usbip://127.0.0.1/"), ("usbips:1-1", "usbips://")],
)
def test_an_address_without_a_host(address: str, remedy: str) -> None:
    for look_up in (connect, list_devices):
        with pytest.raises(ConfigurationError, match="names no USB server") as caught:
            look_up(Address.parse(address), deadline=soon())
        assert remedy in caught.value.remedy


def test_an_exchange_is_one_send_and_two_transfers(lone: UsbIpServer) -> None:
    with connected(at(lone)) as transport:
        for _ in range(3):  # the interrupt transfer is posted and its news filed
            transport.exchange([GET_SLOT_STATUS], 1034, deadline=soon())
        before, served = transport.counters, lone.counters
        for _ in range(10):
            assert len(transport.exchange([GET_SLOT_STATUS], 1034, deadline=soon())) == 10
        after, done = transport.counters, lone.counters

    assert [b - a for a, b in zip(before, after, strict=True)] == [20, 10, 10, 10 * (96 + 10), 10 * (96 + 10)]
    assert (done.urbs - served.urbs, done.sends - served.sends) == (20, 10)


def test_news_that_nobody_takes_are_not_hoarded(lone: UsbIpServer, reader: SimulatedUsbReader) -> None:
    with connected(at(lone)) as transport:
        for _ in range(100):
            reader.reset()  # each time there is news
            transport.exchange([GET_SLOT_STATUS], 1034, deadline=soon())

        assert len(transport._interrupts) == 16
        for _ in range(17):
            assert transport.interrupt_in(deadline=soon()) == b"\x50\x02"


def test_news_for_two_reach_both(
    lone: UsbIpServer, reader: SimulatedUsbReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One takes his while the other has looked already and is about to wait."""
    about_to_wait, go_on = threading.Event(), threading.Event()
    watch = Wire.watch

    def slowly(wire: Wire, *, deadline: float) -> None:
        about_to_wait.set()
        assert go_on.wait(SECONDS)
        watch(wire, deadline=deadline)

    with connected(at(lone)) as transport:
        assert transport.interrupt_in(deadline=soon())
        monkeypatch.setattr(Wire, "watch", slowly)
        heard: list[bytes] = []
        other = threading.Thread(target=lambda: heard.append(transport.interrupt_in(deadline=soon())))
        other.start()
        assert about_to_wait.wait(SECONDS)
        for move in (lambda: reader.insert(open_card("netkey3")), reader.remove):
            transport.exchange([GET_SLOT_STATUS], 1034, deadline=soon())
            move()
        transport.exchange([GET_SLOT_STATUS], 1034, deadline=soon())
        assert len(transport._interrupts) == 2
        assert transport.interrupt_in(deadline=soon()) == b"\x50\x03"
        go_on.set()
        other.join(SECONDS / 2)

        assert heard == [b"\x50\x02"]


def test_an_interface_without_interrupt_endpoint(lone: UsbIpServer) -> None:
    with connected(at(lone)) as transport:
        transport._endpoints = transport._endpoints._replace(interrupt=0)
        with pytest.raises(TransferStalled):
            transport.interrupt_in(deadline=soon())


def test_more_than_was_asked_for_is_an_error_and_no_data(lone: UsbIpServer) -> None:
    with connected(at(lone)) as transport:
        with pytest.raises(TransportError, match="-75"):
            transport.exchange([GET_SLOT_STATUS], 9, deadline=soon())
        assert len(transport.exchange([GET_SLOT_STATUS], 64, deadline=soon())) == 10


@pytest.mark.parametrize("length", [-1, (1 << 20) + 1])
def test_a_transfer_of_an_impossible_length_is_the_callers_mistake(lone: UsbIpServer, length: int) -> None:
    with connected(at(lone)) as transport:
        with pytest.raises(ValueError):
            transport.exchange([GET_SLOT_STATUS], length, deadline=soon())
        with pytest.raises(ValueError):
            transport.bulk_in(length, deadline=soon())
        with pytest.raises(ValueError):
            transport.control(bytes.fromhex("2101000000000400"), [b"abc"], deadline=soon())
        assert transport.exchange([GET_SLOT_STATUS], 64, deadline=soon())


def test_an_interrupted_exchange_is_never_resumed(lone: UsbIpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with connected(at(lone)) as transport:
        with monkeypatch.context() as patch:
            patch.setattr(Wire, "receive", interrupt)
            with pytest.raises(KeyboardInterrupt):
                transport.exchange([GET_SLOT_STATUS], 64, deadline=soon())
        with pytest.raises(DeviceLost) as caught:
            transport.exchange([GET_SLOT_STATUS], 64, deadline=soon())
        assert caught.value.outcome is Outcome.NOT_SENT


def test_a_server_that_is_closed(lone: UsbIpServer) -> None:
    with connected(at(lone)) as transport:
        lone.close()
        with pytest.raises(DeviceLost):
            transport.exchange([GET_SLOT_STATUS], 64, deadline=soon())
        with pytest.raises(DeviceLost) as caught:
            transport.exchange([GET_SLOT_STATUS], 64, deadline=soon())
        assert caught.value.outcome is Outcome.NOT_SENT


def test_a_forked_child_cannot_use_the_parents_reader(lone: UsbIpServer) -> None:
    with connected(at(lone)) as transport:
        assert in_child(transport) == b"not sent"
        assert len(transport.exchange([GET_SLOT_STATUS], 64, deadline=soon())) == 10


def in_child(transport: UsbTransport) -> bytes:
    """What an exchange in a forked child ends with."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads
        child = os.fork()
    if not child:
        try:
            transport.exchange([GET_SLOT_STATUS], 64, deadline=soon())
        except DeviceLost as error:
            os.write(writing, error.outcome.value.encode())
            transport.close()
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read()


def test_what_a_device_calls_itself_moves_no_cursor() -> None:
    profile = dataclasses.replace(UTRUST_2700F, product="Reader\x1b[2J\0")
    server = UsbIpServer([SimulatedUsbReader(None, serial="1\0", profile=profile)], port=0)
    with server, connected(at(server, "serial=1")) as transport:
        assert transport.identity.product == "Reader[2J"


def test_the_driver_of_the_scheme(server: UsbIpServer) -> None:
    assert isinstance(reader_driver("usbip"), UsbIpReaders)
    with contextlib.closing(open_reader(at(server, "serial=53692013000002"))) as reader:
        assert reader.serial == "53692013000002"
        assert not reader.card_present(deadline=soon())


def test_a_list_of_readers(server: UsbIpServer) -> None:
    driver = UsbIpReaders()
    with connected(at(server, "1-2")):
        (free,) = driver.find(at(server), timeouts=Timeouts())
    assert free.address == f"usbip://127.0.0.1:{server.port}/1-1"
    assert free.name == "CCID reader 04e6:5710 at 1-1"
    assert (free.serial, free.card, free.in_use) == (None, None, False)
    assert len(driver.find(at(server, "04e6:5710"), timeouts=Timeouts())) == 2
    assert len(driver.find(at(server, "1-2"), timeouts=Timeouts())) == 1
    assert len(driver.find(at(server, "1-9"), timeouts=Timeouts())) == 0


def test_nothing_that_was_sent_is_logged(lone: UsbIpServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = bytes.fromhex("6f 09000000 00 01 000000 0020000104") + b"1234"
    with connected(at(lone)) as transport:
        transport.exchange([secret], 64, deadline=soon())
        with contextlib.suppress(TransportError):
            transport.exchange([secret], 1, deadline=soon())

    assert "1234" not in caplog.text
    assert "31323334" not in caplog.text
