"""A reader kept on a kernel: a real server at one end; at the other, in the kernel's place, our own client."""

import contextlib
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from demail_hw.address import Address
from demail_hw.ccid.reader import CcidReader
from demail_hw.errors import ConfigurationError, DeadlineExceeded, DeviceBusy, DeviceLost, HardwareError
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw.transaction_lock import TransactionLock
from demail_hw.usbip.binding import BindingEvent, BindingState, RetryLimits
from demail_hw_drivers import vhci_link
from demail_hw_drivers.tls_stream import server_context
from demail_hw_drivers.usbip_client import connect
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_drivers.usbip_transport import UsbIpTransport
from demail_hw_drivers.vhci import Vhci
from demail_hw_drivers.vhci_attach import VhciAttachment
from demail_hw_drivers.vhci_link import LinkEnd
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from lying_server import LIES, Lie, LyingServer
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


def answer_to_reset(transport: UsbIpTransport) -> bytes:
    reader = CcidReader(transport, lock=TransactionLock(), grace=soon)
    with contextlib.closing(reader), contextlib.closing(reader.connect(deadline=soon())) as card:
        return bytes(card.atr)


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
        assert (tmp_path / "ports" / "port4").read_text() == f"127.0.0.1 {server.port} 1-1\n"
        assert transport.identity.serial == "53692013000000"
        assert answer_to_reset(transport) == open_card("netkey3").atr


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


def test_the_switch(kernel: OwnKernel, attach: Callable[..., Attached]) -> None:
    with reader_server() as server:
        attached = attach(f"usbip://127.0.0.1:{server.port}/")
        attached.until(BindingState.ATTACHED)
        held = kernel.transport()
        attached.off.set()
        attached.until(BindingState.OFF)
        held.close()
        connect(Address.parse(f"usbip://127.0.0.1:{server.port}/1-1"), deadline=soon()).close()
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


def test_a_connection_is_not_handed_over_with_something_pending() -> None:
    with UsbIpServer([Hanging()], port=0) as server:
        address = Address.parse(f"usbip://127.0.0.1:{server.port}/")
        with contextlib.closing(connect(address, deadline=soon())) as transport:
            with pytest.raises(DeadlineExceeded):
                transport.bulk_in(64, deadline=time.monotonic() + 0.5)
            with pytest.raises(RuntimeError, match="pending"):
                transport.hand_over(deadline=soon())


def test_what_is_on_no_usbip_server_is_refused(kernel: OwnKernel) -> None:
    with pytest.raises(ConfigurationError, match="pcsc:"):
        VhciAttachment(Address.parse("pcsc:"), vhci=kernel)


def test_a_kernel_without_the_module_is_told_before_a_server_is_asked(tmp_path: pathlib.Path) -> None:
    vhci = Vhci(sysfs=tmp_path / "nothing")
    with (
        VhciAttachment(Address.parse("usbip://127.0.0.1:9/"), vhci=vhci) as attachment,
        pytest.raises(ConfigurationError, match="vhci_hcd"),
    ):
        attachment.run()

    assert attachment.machine.counters.attempts == 0
