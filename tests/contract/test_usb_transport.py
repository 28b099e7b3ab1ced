"""What every UsbTransport does, over TCP and in process, with the same device at the other end."""

import collections
import contextlib
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from demail_hw.address import Address
from demail_hw.ccid.class_descriptor import find_ccid_interface
from demail_hw.errors import (
    DeadlineExceeded,
    DeviceLost,
    Outcome,
    TransferStalled,
    TransferTimeout,
    TransportError,
)
from demail_hw.interfaces import Buffer, ExportedDevice, Transfer, TransferResult, UsbIdentity, UsbTransport
from demail_hw.usb.descriptors import (
    SMART_CARD_CLASS,
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    TransferType,
)
from demail_hw.usb.setup import Recipient, SetupPacket, StandardRequest, get_descriptor, set_configuration
from demail_hw.usb.standard_requests import StandardRequests
from demail_hw.usbip.messages import UrbStatus
from demail_hw_drivers.libusb import claim
from demail_hw_drivers.libusb import connect as connect_libusb
from demail_hw_drivers.libusb_transport import DeviceTransport
from demail_hw_drivers.tls_stream import server_context
from demail_hw_drivers.usbip_client import connect
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ccid_device import UTRUST_2700F
from demail_hw_simulators.loopback import LoopbackTransport
from libusb_bed import PRELOADED, plugged_in
from tls_files import TlsAuthority

Complete: TypeAlias = Callable[[TransferResult], None]
Opener: TypeAlias = Callable[["EchoDevice"], UsbTransport]

OUT, IN, INTERRUPT = 0x01, 0x82, 0x83
LONG = 20.0
SHORT = 0.05


class EchoDevice:
    """A device that answers bulk IN with what came on bulk OUT, unless it is told otherwise."""

    serial = "53692013000000"
    speed = 2

    def __init__(self) -> None:
        self.device_descriptor = DeviceDescriptor(0x0200, 0, 0, 0, 64, 0x04E6, 0x5710, 0x0102, 1, 2, 3, 1).encode()
        endpoints = (
            EndpointDescriptor(OUT, TransferType.BULK, 64, 0),
            EndpointDescriptor(IN, TransferType.BULK, 64, 0),
            EndpointDescriptor(INTERRUPT, TransferType.INTERRUPT, 16, 16),
        )
        interface = InterfaceDescriptor(0, 0, SMART_CARD_CLASS, 0, 0, 0, endpoints, UTRUST_2700F.descriptor.encode())
        self.configuration_descriptor = ConfigurationDescriptor(1, 0, 0x80, 50, (interface,)).encode()
        self.requests = StandardRequests(
            self.device_descriptor, self.configuration_descriptor, ("Maker", "Echo", self.serial)
        )
        self.lock = threading.RLock()
        self.received: list[bytes] = []
        self.mute = False
        self.deaf = False
        self.failures: dict[int, int] = {}
        self.resets = 0
        self.answers: collections.deque[bytes] = collections.deque()
        self.news: collections.deque[bytes] = collections.deque()
        self.pending: dict[int, list[tuple[Transfer, Complete]]] = {OUT: [], IN: [], INTERRUPT: []}
        self.idle = threading.Condition(self.lock)

    def submit(self, transfer: Transfer, complete: Complete) -> None:
        with self.lock:
            if transfer.endpoint in self.failures:
                complete(TransferResult(self.failures[transfer.endpoint]))
            elif self.requests.halted(transfer.endpoint):
                complete(TransferResult(UrbStatus.EPIPE))
            elif transfer.endpoint in (IN, INTERRUPT) or (transfer.endpoint == OUT and self.deaf):
                self.pending[transfer.endpoint].append((transfer, complete))
                self.meet()
            elif transfer.endpoint == OUT:
                self.received.append(transfer.data)
                if not self.mute:
                    self.answers.append(transfer.data)
                complete(TransferResult(UrbStatus.OK))
                self.meet()
            else:
                answer = self.requests.answer(SetupPacket.decode(transfer.setup), transfer.data)
                complete(TransferResult(UrbStatus.EPIPE) if answer is None else TransferResult(0, answer))

    def meet(self) -> None:
        for endpoint, queue in ((IN, self.answers), (INTERRUPT, self.news)):
            while self.pending[endpoint] and queue:
                _, complete = self.pending[endpoint].pop(0)
                complete(TransferResult(UrbStatus.OK, queue.popleft()))
        self.idle.notify_all()

    def notify(self, news: bytes) -> None:
        with self.lock:
            self.news.append(news)
            self.meet()

    def cancel(self, transfer: Transfer) -> bool:
        with self.lock:
            for queue in self.pending.values():
                for item in queue:
                    if item[0] is transfer:
                        queue.remove(item)
                        self.idle.notify_all()
                        return True
            return False

    def reset(self) -> None:
        with self.lock:
            self.resets += 1
            for queue in self.pending.values():
                queue.clear()

    def wait_for_pending(self, endpoint: int, count: int) -> None:
        with self.idle:
            assert self.idle.wait_for(lambda: len(self.pending[endpoint]) == count, LONG)


@pytest.fixture
def device() -> EchoDevice:
    return EchoDevice()


def over_tcp(device: ExportedDevice, stack: contextlib.ExitStack) -> UsbTransport:
    server = stack.enter_context(UsbIpServer([device], port=0))
    return connect(Address.parse(f"usbip://127.0.0.1:{server.port}/"), deadline=soon())


def through_tls(device: EchoDevice, stack: contextlib.ExitStack) -> UsbTransport:
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    authority = TlsAuthority(folder)
    context = server_context(authority.issue("server", ip="127.0.0.1"))
    server = stack.enter_context(UsbIpServer([device], port=0, context=context))
    client = authority.issue("client")
    address = Address("usbips", "127.0.0.1", server.port, cert=client.certificate, key=client.key, ca=client.ca)
    return connect(address, deadline=soon())


def in_process(device: EchoDevice, stack: contextlib.ExitStack) -> UsbTransport:
    return LoopbackTransport(device)


def of_a_device(device: EchoDevice, stack: contextlib.ExitStack) -> UsbTransport:
    device.submit(Transfer(0, setup=set_configuration(1).encode()), lambda _: None)
    identity = UsbIdentity(0x04E6, 0x5710, device.serial, "Echo", "1-1", 0x0102)
    return DeviceTransport(device, find_ccid_interface(device.configuration_descriptor), identity, device.reset)


def through_libusb(device: EchoDevice, stack: contextlib.ExitStack) -> UsbTransport:
    stack.enter_context(plugged_in(device))
    return connect_libusb(Address("libusb"), deadline=soon())


def exported_through_libusb(device: EchoDevice, stack: contextlib.ExitStack) -> UsbTransport:
    stack.enter_context(plugged_in(device))
    exported = claim(Address("libusb"))
    stack.callback(exported.close)
    return over_tcp(exported, stack)


# What libusb sees is another process' affair: tests/real/test_libusb.py starts it.
OPENERS = [through_libusb, exported_through_libusb] if PRELOADED else [over_tcp, through_tls, in_process, of_a_device]


@pytest.fixture(params=OPENERS)
def transport(request: pytest.FixtureRequest, device: EchoDevice) -> Iterator[UsbTransport]:
    with contextlib.ExitStack() as stack:
        opened = request.param(device, stack)
        stack.callback(opened.close)
        yield opened


def soon(seconds: float = LONG) -> float:
    return time.monotonic() + seconds


def test_it_says_who_the_device_is(transport: UsbTransport, device: EchoDevice) -> None:
    assert transport.identity[:-1] == (0x04E6, 0x5710, device.serial, "Echo", "1-1", 0x0102)
    assert transport.identity.interface in (None, 0)
    assert transport.configuration == device.configuration_descriptor
    assert device.requests.configured


def test_an_exchange_is_both_bulk_transfers(transport: UsbTransport, device: EchoDevice) -> None:
    command: list[Buffer] = [b"head", bytearray(b"secret"), memoryview(b"tail")]

    assert transport.exchange(command, 1034, deadline=soon()) == b"headsecrettail"
    assert device.received == [b"headsecrettail"]


def test_bulk_transfers_one_by_one(transport: UsbTransport, device: EchoDevice) -> None:
    transport.bulk_out([b"one"], deadline=soon())
    transport.bulk_out([b"two"], deadline=soon())

    assert transport.bulk_in(64, deadline=soon()) == b"one"
    assert transport.bulk_in(64, deadline=soon()) == b"two"


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 16384, 65556])
def test_sizes(transport: UsbTransport, size: int) -> None:
    data = bytes(n & 0xFF for n in range(size))

    assert transport.exchange([data], 65556, deadline=soon()) == data


def test_a_control_request_is_answered(transport: UsbTransport) -> None:
    setup = get_descriptor(1, 0, 18).encode()

    assert transport.control(setup, deadline=soon())[8:12] == bytes.fromhex("e6041057")


def test_an_unknown_control_request_stalls_and_changes_nothing(transport: UsbTransport) -> None:
    with pytest.raises(TransferStalled) as caught:
        transport.control(SetupPacket(0xC0, 0x42, 0, 0, 8).encode(), deadline=soon())

    assert caught.value.outcome is Outcome.REFUSED
    assert transport.exchange([b"fine"], 64, deadline=soon()) == b"fine"


def test_nothing_is_sent_after_the_deadline(transport: UsbTransport, device: EchoDevice) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        transport.exchange([b"late"], 64, deadline=time.monotonic())

    assert caught.value.outcome is Outcome.NOT_SENT
    assert device.received == []


def test_a_mute_device_costs_the_deadline_and_no_more(transport: UsbTransport, device: EchoDevice) -> None:
    device.mute = True
    with pytest.raises(DeadlineExceeded) as caught:
        transport.exchange([b"unanswered"], 64, deadline=soon(SHORT))
    device.wait_for_pending(IN, 0)
    device.mute = False

    assert caught.value.outcome is Outcome.UNKNOWN
    assert transport.exchange([b"next"], 64, deadline=soon()) == b"next"


def test_a_device_that_takes_no_command_costs_the_deadline_and_no_more(
    transport: UsbTransport, device: EchoDevice
) -> None:
    device.deaf = True
    with pytest.raises(DeadlineExceeded) as caught:
        transport.exchange([b"not taken"], 64, deadline=soon(SHORT))
    device.wait_for_pending(OUT, 0)
    device.wait_for_pending(IN, 0)
    device.deaf = False

    assert caught.value.outcome is Outcome.UNKNOWN
    assert transport.exchange([b"next"], 64, deadline=soon()) == b"next"


def test_a_stalled_command_was_refused_and_leaves_nothing_behind(transport: UsbTransport, device: EchoDevice) -> None:
    device.requests.halt(OUT)
    with pytest.raises(TransferStalled) as caught:
        transport.exchange([b"refused"], 64, deadline=soon())

    assert caught.value.outcome is Outcome.REFUSED
    device.wait_for_pending(IN, 0)
    transport.clear_halt(OUT, deadline=soon())
    assert transport.exchange([b"taken"], 64, deadline=soon()) == b"taken"
    assert device.received == [b"taken"]


def test_a_stalled_answer_leaves_the_command_in_doubt(transport: UsbTransport, device: EchoDevice) -> None:
    device.requests.halt(IN)
    with pytest.raises(TransferStalled) as caught:
        transport.exchange([b"arrived"], 64, deadline=soon())

    assert caught.value.outcome is Outcome.UNKNOWN
    assert device.received == [b"arrived"]
    transport.clear_halt(IN, deadline=soon())
    assert transport.bulk_in(64, deadline=soon()) == b"arrived"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (UrbStatus.ENODEV, DeviceLost),
        (UrbStatus.ESHUTDOWN, DeviceLost),
        (UrbStatus.ETIMEDOUT, TransferTimeout),
        (UrbStatus.ETIME, TransferTimeout),
        (UrbStatus.EPROTO, TransportError),
        (UrbStatus.EIO, TransportError),
    ],
)
@pytest.mark.parametrize("endpoint", [OUT, IN])
def test_what_breaks_on_the_bus_is_told_apart(
    transport: UsbTransport, device: EchoDevice, endpoint: int, status: UrbStatus, kind: type[TransportError]
) -> None:
    device.failures[endpoint] = status
    with pytest.raises(TransportError) as caught:
        transport.exchange([b"command"], 64, deadline=soon())

    # libusb has one word for whatever goes wrong on the bus.
    assert type(caught.value) is (TransportError if PRELOADED and kind is TransferTimeout else kind)
    assert caught.value.outcome is Outcome.UNKNOWN


def test_interrupt_answers_come_in_order(transport: UsbTransport, device: EchoDevice) -> None:
    device.notify(b"\x50\x03")
    device.notify(b"\x50\x02")

    assert transport.interrupt_in(deadline=soon()) == b"\x50\x03"
    assert transport.interrupt_in(deadline=soon()) == b"\x50\x02"


def test_interrupt_answers_are_kept_while_others_exchange(transport: UsbTransport, device: EchoDevice) -> None:
    for number in range(3):
        assert transport.exchange([b"x"], 64, deadline=soon()) == b"x"
        device.notify(bytes((0x50, number)))
    assert transport.exchange([b"y"], 64, deadline=soon()) == b"y"

    assert [transport.interrupt_in(deadline=soon())[1] for _ in range(3)] == [0, 1, 2]


def test_no_news_until_the_deadline(transport: UsbTransport, device: EchoDevice) -> None:
    with pytest.raises(DeadlineExceeded):
        transport.interrupt_in(deadline=soon(SHORT))
    device.notify(b"\x50\x03")

    assert transport.interrupt_in(deadline=soon()) == b"\x50\x03"


def test_one_waits_for_news_while_another_exchanges(transport: UsbTransport, device: EchoDevice) -> None:
    heard: list[bytes] = []
    listener = threading.Thread(target=lambda: heard.append(transport.interrupt_in(deadline=soon())))
    listener.start()
    device.wait_for_pending(INTERRUPT, 1)
    for number in range(100):
        data = number.to_bytes(2, "big")
        assert transport.exchange([data], 64, deadline=soon()) == data
    device.notify(b"\x50\x03")
    listener.join(LONG)

    assert heard == [b"\x50\x03"]


def test_who_waits_for_news_waits_no_longer_than_his_deadline(transport: UsbTransport, device: EchoDevice) -> None:
    errors: list[DeadlineExceeded] = []
    answers: list[bytes] = []

    def listen() -> None:
        try:
            transport.interrupt_in(deadline=soon(10 * SHORT))
        except DeadlineExceeded as error:
            errors.append(error)

    listener = threading.Thread(target=listen)
    sender = threading.Thread(target=lambda: answers.append(transport.exchange([b"x"], 64, deadline=soon())))
    device.mute = True
    listener.start()
    device.wait_for_pending(INTERRUPT, 1)
    sender.start()
    device.wait_for_pending(IN, 1)
    listener.join(LONG)
    assert len(errors) == 1
    assert answers == []
    with device.lock:
        device.answers.append(b"at last")
        device.meet()
    sender.join(LONG)

    assert answers == [b"at last"]


def test_many_threads_get_their_own_answers(transport: UsbTransport) -> None:
    wrong: list[bytes] = []

    def work(number: int) -> None:
        for turn in range(50):
            data = bytes((number, turn))
            answer = transport.exchange([data], 64, deadline=soon())
            if answer != data:
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)

    assert wrong == []


def test_closing_lets_the_device_go(transport: UsbTransport, device: EchoDevice) -> None:
    transport.close()
    transport.close()

    # A claim that ends is nothing to the device: there only CcidReader.close takes the card's power.
    claimed_here = PRELOADED and isinstance(transport, DeviceTransport)
    assert device.resets == (0 if claimed_here else 1)
    with pytest.raises(DeviceLost) as caught:
        transport.exchange([b"x"], 64, deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT
    assert device.received == []


def test_closing_wakes_whoever_waits(transport: UsbTransport, device: EchoDevice) -> None:
    errors: list[BaseException] = []

    def listen() -> None:
        try:
            transport.interrupt_in(deadline=soon())
        except DeviceLost as error:
            errors.append(error)

    listener = threading.Thread(target=listen)
    listener.start()
    device.wait_for_pending(INTERRUPT, 1)
    transport.close()
    listener.join(LONG)

    assert len(errors) == 1


def test_a_request_of_the_interface(transport: UsbTransport) -> None:
    setup = SetupPacket(0x80 | Recipient.INTERFACE, StandardRequest.GET_INTERFACE, 0, 0, 1)

    assert transport.control(setup.encode(), deadline=soon()) == b"\0"
