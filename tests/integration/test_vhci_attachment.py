"""A reader kept on a kernel: a real server at one end; at the other, in the kernel's place, our own client."""

import contextlib
import pathlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from captured import flows
from demail_hw.address import Address
from demail_hw.ccid.reader import CcidConnection, CcidReader
from demail_hw.cli.exit_codes import ExitCode, exit_code_of
from demail_hw.errors import (
    ConfigurationError,
    DeadlineExceeded,
    DeviceBusy,
    DeviceLost,
    HardwareError,
)
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw.polling import pause
from demail_hw.transaction_lock import TransactionLock
from demail_hw.usb.descriptors import ConfigurationDescriptor, DescriptorType, InterfaceDescriptor
from demail_hw.usb.setup import SetupPacket, StandardRequest, get_descriptor
from demail_hw.usbip.binding import BindingEvent, BindingState, RetryLimits
from demail_hw.usbip.messages import NO_SETUP, UrbStatus
from demail_hw_drivers import vhci_attach, vhci_link
from demail_hw_drivers.tls_stream import server_context
from demail_hw_drivers.usbip_capture import CaptureFile
from demail_hw_drivers.usbip_client import connect
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_drivers.usbip_transport import UsbIpTransport
from demail_hw_drivers.vhci import Origin, Vhci
from demail_hw_drivers.vhci_attach import VhciAttachment
from demail_hw_drivers.vhci_link import LinkEnd, VhciLink
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import UTRUST_2700F, SimulatedUsbReader
from demail_hw_simulators.interfaces import SimulatedCard
from exported import wait_until_free
from lying_server import LIES, Lie, LyingServer, as_keyboard
from own_kernel import OwnKernel
from tls_files import TlsAuthority

SECONDS = 20.0
AT_ONCE = RetryLimits(first=0.001, longest=0.001, busy=0.001, stable=0.0)
INTERRUPT, BULK_IN = 3, 0x82
STEADY = [BindingState.CONNECTING, BindingState.ATTACHED]


def soon() -> float:
    return time.monotonic() + SECONDS


class Attached:
    """An attachment that runs in a thread, and what it told."""

    def __init__(self, address: str, kernel: OwnKernel, limits: RetryLimits = AT_ONCE) -> None:
        self.events: queue.SimpleQueue[BindingEvent] = queue.SimpleQueue()
        self.off = threading.Event()
        self.end: LinkEnd | None = None
        self.error: HardwareError | None = None
        self.attachment = VhciAttachment(
            Address.parse(address), vhci=kernel, limits=limits, tell=self.events.put, is_off=self.off.is_set
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.end = self.attachment.run()
        except HardwareError as error:
            self.error = error

    def until(self, state: BindingState) -> Sequence[BindingEvent]:
        """All events up to the next of this state."""
        told: list[BindingEvent] = []
        while not told or told[-1].state is not state:
            told.append(self.events.get(timeout=SECONDS))
        return told

    def join(self) -> None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self.attachment.stop()
        self.join()
        self.attachment.close()


@pytest.fixture
def kernel(tmp_path: pathlib.Path) -> OwnKernel:
    return OwnKernel(tmp_path)


@pytest.fixture
def attach(kernel: OwnKernel) -> Iterator[Callable[..., Attached]]:
    with contextlib.ExitStack() as stack:

        def start(address: str, limits: RetryLimits = AT_ONCE) -> Attached:
            return stack.enter_context(contextlib.closing(Attached(address, kernel, limits)))

        yield start


def reader_server(port: int = 0) -> UsbIpServer:
    return UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=port)


def states(events: Sequence[BindingEvent]) -> list[BindingState]:
    return [event.state for event in events]


@contextlib.contextmanager
def card_behind(transport: UsbIpTransport) -> Iterator[CcidConnection]:
    reader = CcidReader(transport, lock=TransactionLock(), grace=soon, pause=pause)
    with contextlib.closing(reader), contextlib.closing(reader.connect(deadline=soon())) as card:
        yield card


def answer_to_reset(transport: UsbIpTransport) -> bytes:
    with card_behind(transport) as card:
        return card.atr


def answers_to(transport: UsbIpTransport, *commands: bytes) -> list[bytes]:
    with card_behind(transport) as card, card.transaction(deadline=soon()):
        return [card.transmit((command,), deadline=soon()) for command in commands]


def listen_for_ever(transport: UsbIpTransport) -> None:
    while True:
        transport.interrupt_in(deadline=soon())


def test_the_kernel_has_the_reader(
    kernel: OwnKernel, attach: Callable[..., Attached], tmp_path: pathlib.Path
) -> None:
    with reader_server() as server:
        attached = attach(f"usbip://127.0.0.1:{server.port}/serial=53692013000000")
        assert states(attached.until(BindingState.ATTACHED)) == STEADY
        transport = kernel.transport()

        assert attached.attachment.port == 4
        assert attached.attachment.counters.urbs > 0
        first, second = (tmp_path / "ports" / "port4").read_text().splitlines()
        assert first == f"127.0.0.1 {server.port} 1-1"
        assert second == f"usbip://127.0.0.1:{server.port}/serial=53692013000000"
        assert transport.identity.serial == "53692013000000"
        assert answer_to_reset(transport) == open_card("netkey3").atr


def test_a_capture_has_what_the_kernel_says_and_no_pin(
    kernel: OwnKernel, attach: Callable[..., Attached], tmp_path: pathlib.Path
) -> None:
    ours, theirs = tmp_path / "client", tmp_path / "server"
    select, verify, pin = bytes.fromhex("00A4000C023F00"), bytes.fromhex("0020000006"), b"918273"
    reader = SimulatedUsbReader(open_card("netkey3"))
    with UsbIpServer([reader], port=0, capture=CaptureFile(str(theirs))) as server:
        attached = attach(f"usbip://127.0.0.1:{server.port}/1-1?capture={ours}")
        attached.until(BindingState.ATTACHED)
        assert answers_to(kernel.transport(), select, verify + pin) == [b"\x90\x00", b"\x63\xc2"]
        attached.attachment.stop()
        attached.join()
    for path in (ours, theirs):
        file = path.read_bytes()
        assert select in file
        assert verify + b"******" in file
        assert not any(pin[start : start + 4] in file for start in range(3))
    assert flows(ours.read_bytes()) == flows(theirs.read_bytes())


def test_it_stops_in_the_middle_of_an_attempt(
    attach: Callable[..., Attached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vhci_attach, "_ATTEMPT_SECONDS", 10 * SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        attached = attach(f"usbip://127.0.0.1:{listener.getsockname()[1]}/1-1")
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            attached.attachment.stop()
            attached.join()
    assert attached.end is LinkEnd.STOPPED
    assert attached.attachment.machine.counters.failures == 0


def test_a_missing_reader_costs_the_others_one_look(attach: Callable[..., Attached]) -> None:
    with reader_server() as server:
        attached = attach(f"usbip://127.0.0.1:{server.port}/serial=absent")
        for _ in range(5):
            attached.until(BindingState.BACK_OFF)
        assert server.counters.imports == 1


def test_a_device_that_is_detached_in_the_kernel_stays_so(
    kernel: OwnKernel, attach: Callable[..., Attached], tmp_path: pathlib.Path
) -> None:
    with reader_server() as server:
        address = f"usbip://127.0.0.1:{server.port}/"
        attached = attach(address)
        transport = kernel.transport()
        transport.close()
        attached.join()

        assert attached.end is LinkEnd.DETACHED
        assert not (tmp_path / "ports" / "port4").exists()
        connect(Address.parse(address), deadline=soon()).close()  # the server has it back


def test_a_stop_lets_the_device_go(
    kernel: OwnKernel, attach: Callable[..., Attached], tmp_path: pathlib.Path
) -> None:
    with reader_server() as server:
        address = f"usbip://127.0.0.1:{server.port}/"
        attached = attach(address)
        with contextlib.closing(kernel.transport()):
            attached.attachment.stop()
            attached.join()

            assert attached.end is LinkEnd.STOPPED
            assert attached.attachment.port is None
            assert not (tmp_path / "ports" / "port4").exists()
        connect(Address.parse(address), deadline=soon()).close()


def test_it_heals(kernel: OwnKernel, attach: Callable[..., Attached]) -> None:
    with reader_server() as server:
        port = server.port
        attached = attach(f"usbip://127.0.0.1:{port}/")
        attached.until(BindingState.ATTACHED)
        before = kernel.transport()
    lost = attached.until(BindingState.BACK_OFF)
    assert states(lost)[0] is BindingState.LOST
    assert "closed the connection" in lost[0].reason
    before.close()
    with reader_server(port):
        assert attached.until(BindingState.ATTACHED)
        assert answer_to_reset(kernel.transport()) == open_card("netkey3").atr
        assert attached.attachment.machine.counters.attachments == 2


def test_it_waits_for_a_reader_that_somebody_has(kernel: OwnKernel, attach: Callable[..., Attached]) -> None:
    with reader_server() as server:
        address = f"usbip://127.0.0.1:{server.port}/1-1"
        with contextlib.closing(connect(Address.parse(address), deadline=soon())):
            attached = attach(address)
            attached.until(BindingState.BACK_OFF)
        attached.until(BindingState.ATTACHED)
        kernel.transport().close()

        assert attached.attachment.machine.counters.busy > 0


def test_it_gives_up_after_the_attempts_that_it_has(attach: Callable[..., Attached]) -> None:
    with reader_server() as server:
        address = f"usbip://127.0.0.1:{server.port}/1-1"
        with contextlib.closing(connect(Address.parse(address), deadline=soon())):
            attached = attach(address, RetryLimits(first=0.001, longest=0.001, busy=0.001, attempts=2))
            attached.join()

    assert isinstance(attached.error, DeviceBusy)
    assert attached.attachment.machine.counters.attempts == 2


def test_what_no_time_mends_ends_it_at_once(attach: Callable[..., Attached], tmp_path: pathlib.Path) -> None:
    attached = attach(f"usbips://127.0.0.1:9/?ca={tmp_path}/missing.pem")
    attached.join()

    assert isinstance(attached.error, ConfigurationError)
    assert "missing.pem" in attached.error.message


def test_a_service_that_worked_once_waits_for_what_no_time_mends(
    kernel: OwnKernel, attach: Callable[..., Attached], tmp_path: pathlib.Path
) -> None:
    """A person may be renewing the certificate right now."""
    authority = TlsAuthority(tmp_path)
    context = server_context(authority.issue("server", ip="127.0.0.1"))
    files = authority.issue("client")
    present, gone = pathlib.Path(files.certificate), tmp_path / "gone"
    with UsbIpServer([SimulatedUsbReader(None)], port=0, context=context) as server:
        port = server.port
        attached = attach(f"usbips://127.0.0.1:{port}/?cert={present}&key={files.key}&ca={authority.ca}")
        attached.until(BindingState.ATTACHED)
        before = kernel.transport()
        present.rename(gone)
    before.close()
    assert present.name in attached.until(BindingState.BACK_OFF)[-1].reason
    gone.rename(present)
    with UsbIpServer([SimulatedUsbReader(None)], port=port, context=context):
        attached.until(BindingState.ATTACHED)
        kernel.transport().close()


class Interrupted(OwnKernel):
    """Its user is out of patience when the device is on its port."""

    def remember(self, number: int, origin: Origin) -> None:
        super().remember(number, origin)
        raise SystemExit


def test_an_attachment_that_is_interrupted_leaves_nothing(tmp_path: pathlib.Path) -> None:
    kernel = Interrupted(tmp_path)
    with reader_server() as server:
        address = Address.parse(f"usbip://127.0.0.1:{server.port}/1-1")
        wire, device, pump = connect(address, deadline=soon()).hand_over(deadline=soon())
        with pytest.raises(SystemExit):
            VhciLink(wire, device, pump, kernel, Origin("127.0.0.1", server.port, "1-1"))

        assert list((tmp_path / "ports").iterdir()) == []
        with kernel.devices.get(timeout=SECONDS)[0] as sock:
            assert sock.recv(1) == b""
        assert wait_until_free(server, "1-1", deadline=soon())


def test_the_switch(kernel: OwnKernel, attach: Callable[..., Attached]) -> None:
    with reader_server() as server:
        attached = attach(f"usbip://127.0.0.1:{server.port}/")
        attached.until(BindingState.ATTACHED)
        held = kernel.transport()
        attached.off.set()
        attached.until(BindingState.OFF)
        held.close()
        assert wait_until_free(server, "1-1", deadline=soon())
        attached.off.clear()

        attached.until(BindingState.ATTACHED)
        kernel.transport().close()


def test_through_tls(kernel: OwnKernel, attach: Callable[..., Attached], tmp_path: pathlib.Path) -> None:
    authority = TlsAuthority(tmp_path)
    context = server_context(authority.issue("server", ip="127.0.0.1"))
    files = authority.issue("client")
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=0, context=context) as server:
        attached = attach(
            f"usbips://127.0.0.1:{server.port}/?cert={files.certificate}&key={files.key}&ca={authority.ca}"
        )
        attached.until(BindingState.ATTACHED)

        assert answer_to_reset(kernel.transport()) == open_card("netkey3").atr


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_lying_server_is_left(kernel: OwnKernel, attach: Callable[..., Attached], lie: Lie) -> None:
    with reader_server() as server, LyingServer(server.port, lie, endpoint=INTERRUPT) as liar:
        attached = attach(f"usbip://127.0.0.1:{liar.port}/", RetryLimits(first=60.0, longest=60.0))
        attached.until(BindingState.ATTACHED)
        transport = kernel.transport()
        # The kernel sees the end of the connection, or an answer that is right, and no lie.
        with pytest.raises(DeviceLost):
            listen_for_ever(transport)
        lost = attached.until(BindingState.LOST)[-1]

        assert "USB/IP" in lost.reason
        assert liar.hung_up.acquire(timeout=SECONDS)
        transport.close()


def test_a_server_whose_device_becomes_another_is_left(kernel: OwnKernel, attach: Callable[..., Attached]) -> None:
    with reader_server() as server, LyingServer(server.port, as_keyboard, endpoint=0) as liar:
        attached = attach(f"usbip://127.0.0.1:{liar.port}/", RetryLimits(first=60.0, longest=60.0))
        attached.until(BindingState.ATTACHED)
        with pytest.raises(DeviceLost):
            kernel.transport()

        assert "not what it showed first" in attached.until(BindingState.LOST)[-1].reason


class TwoConfigurations(SimulatedUsbReader):
    """A reader with a second configuration."""

    def __init__(self, card: SimulatedCard | None, interface: InterfaceDescriptor) -> None:
        super().__init__(card)
        second = ConfigurationDescriptor(2, 0, 0x80, 50, (interface,)).encode()
        self._shown = {
            DescriptorType.DEVICE << 8: UTRUST_2700F.device_descriptor()[:-1] + b"\x02",
            DescriptorType.CONFIGURATION << 8 | 1: second,
        }

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        setup = SetupPacket.decode(transfer.setup or NO_SETUP)
        descriptor = self._shown.get(setup.value) if setup.request == StandardRequest.GET_DESCRIPTOR else None
        if descriptor is None:
            super().submit(transfer, complete)
        else:
            complete(TransferResult(UrbStatus.OK, descriptor[: setup.length]))


def test_what_is_more_than_a_reader_stays_outside(kernel: OwnKernel, attach: Callable[..., Attached]) -> None:
    keyboard = InterfaceDescriptor(0, 0, 0x03, 1, 1, 0)
    with UsbIpServer([TwoConfigurations(None, keyboard)], port=0) as server:
        attached = attach(f"usbip://127.0.0.1:{server.port}/")
        attached.join()

    assert isinstance(attached.error, HardwareError)
    assert exit_code_of(attached.error) is ExitCode.CONFIGURATION, "the unit does not start it anew"
    assert "class 0x03" in attached.error.message
    assert attached.attachment.machine.counters.attempts == 1
    assert kernel.devices.empty()


def test_a_reader_of_two_configurations(kernel: OwnKernel, attach: Callable[..., Attached]) -> None:
    device = TwoConfigurations(open_card("netkey3"), UTRUST_2700F.interface_descriptor(0))
    with UsbIpServer([device], port=0) as server:
        attached = attach(f"usbip://127.0.0.1:{server.port}/")
        attached.until(BindingState.ATTACHED)
        assert answer_to_reset(kernel.transport()) == open_card("netkey3").atr


class Hanging(SimulatedUsbReader):
    """Neither answers nor gives back what it was asked for on its bulk endpoint."""

    def __init__(self) -> None:
        super().__init__(None)

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        if transfer.endpoint != BULK_IN:
            super().submit(transfer, complete)

    def cancel(self, transfer: Transfer) -> bool:
        return False


def test_a_server_that_hangs_is_left(
    kernel: OwnKernel, attach: Callable[..., Attached], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is alive, but it does not take back a transfer, which no device can hold up."""
    monkeypatch.setattr(vhci_link, "_UNLINK_SECONDS", 0.0)
    with UsbIpServer([Hanging()], port=0) as server:
        attached = attach(f"usbip://127.0.0.1:{server.port}/", RetryLimits(first=60.0, longest=60.0))
        attached.until(BindingState.ATTACHED)
        with contextlib.closing(kernel.transport()) as transport:
            with pytest.raises(DeadlineExceeded):
                transport.bulk_in(64, deadline=time.monotonic() + 0.5)
            assert "did not take back a transfer" in attached.until(BindingState.LOST)[-1].reason


def test_a_server_that_hangs_is_left_whatever_else_it_says(
    kernel: OwnKernel, attach: Callable[..., Attached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vhci_link, "_UNLINK_SECONDS", 0.3)
    with UsbIpServer([Hanging()], port=0) as server:
        attached = attach(f"usbip://127.0.0.1:{server.port}/", RetryLimits(first=60.0, longest=60.0))
        with contextlib.closing(kernel.transport()) as transport:
            with pytest.raises(DeadlineExceeded):
                transport.bulk_in(64, deadline=time.monotonic() + 0.1)
            with pytest.raises(DeviceLost):
                ask_until(soon(), transport)
            assert "did not take back a transfer" in attached.until(BindingState.LOST)[-1].reason


def ask_until(deadline: float, transport: UsbIpTransport) -> None:
    while time.monotonic() < deadline:
        transport.control(get_descriptor(DescriptorType.DEVICE, 0, 18).encode(), deadline=deadline)


def test_a_connection_is_not_handed_over_with_something_pending() -> None:
    with UsbIpServer([Hanging()], port=0) as server:
        address = Address.parse(f"usbip://127.0.0.1:{server.port}/")
        with contextlib.closing(connect(address, deadline=soon())) as transport:
            with pytest.raises(DeadlineExceeded):
                transport.bulk_in(64, deadline=time.monotonic() + 0.5)
            with pytest.raises(RuntimeError, match="pending"):
                transport.hand_over(deadline=soon())


@pytest.mark.parametrize(("text", "why"), [("pcsc:", "pcsc:"), ("usbip://h/?interface=0", "the whole device")])
def test_what_no_kernel_can_attach_is_refused(kernel: OwnKernel, text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        VhciAttachment(Address.parse(text), vhci=kernel)


def test_a_kernel_without_the_module_is_told_before_a_server_is_asked(tmp_path: pathlib.Path) -> None:
    vhci = Vhci(sysfs=tmp_path / "nothing")
    with (
        VhciAttachment(Address.parse("usbip://127.0.0.1:9/"), vhci=vhci) as attachment,
        pytest.raises(ConfigurationError, match="vhci_hcd"),
    ):
        attachment.run()

    assert attachment.machine.counters.attempts == 0
