"""A bound reader over TCP: servers that are killed and come back, others that hold the device, the switch."""

import contextlib
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest

from demail_hw.address import Address
from demail_hw.config.schema import BindingConfig, BindingMode, TlsConfig
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
from demail_hw.interfaces import CardConnection, Transfer, TransferResult
from demail_hw.keys.provider import open_provider
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.registry import find_readers, open_reader
from demail_hw.usbip.binding import BindingEvent, BindingState, RetryLimits
from demail_hw_drivers import binding as binding_module
from demail_hw_drivers.binding import Binding
from demail_hw_drivers.binding_reader import BindingReader, bind
from demail_hw_drivers.binding_switch import BindingSwitch
from demail_hw_drivers.tcp import StopFlag
from demail_hw_drivers.tls_stream import TlsFiles, server_context
from demail_hw_drivers.usbip_client import connect
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_drivers.usbip_server_audit import AuditLine
from demail_hw_drivers.usbip_transport import UsbIpTransport
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from fault_bed import Deaf
from tls_files import TlsAuthority

SECONDS = 30.0
QUICK = RetryLimits(first=0.01, longest=0.05, busy=0.02, stable=0.0)
NEVER = RetryLimits(first=1000, longest=1000, busy=1000, stable=0.0)
SELECT_MF = bytes.fromhex("00a4000c023f00")


def soon() -> float:
    return time.monotonic() + SECONDS


def short() -> float:
    return time.monotonic() + 0.2


class Events:
    """What a binding tells, waited for."""

    def __init__(self, binding: Binding) -> None:
        self._queue: queue.SimpleQueue[BindingEvent] = queue.SimpleQueue()
        self.stop = binding.listen(self._queue.put)

    def until(self, state: BindingState) -> BindingEvent:
        while (event := self._queue.get(timeout=SECONDS)).state is not state:
            pass
        return event

    def states(self) -> list[str]:
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._queue.get_nowait().state.value)
        return found


class ServerProcess:
    """``demail-hw simulate usb-server`` in a process that can be killed, always on the same port."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        words = ["simulate", "usb-server", "--listen", f"127.0.0.1:{self.port}", "--json", "--until-eof"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "demail_hw.cli", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline())["port"] == self.port

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture
def process() -> Iterator[ServerProcess]:
    server = ServerProcess()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server() -> Iterator[UsbIpServer]:
    devices = [SimulatedUsbReader(open_card("netkey3"), serial="1"), SimulatedUsbReader(None, serial="2")]
    with UsbIpServer(devices, port=0) as running:
        yield running


@pytest.fixture
def switch(tmp_path: pathlib.Path) -> BindingSwitch:
    return BindingSwitch(tmp_path)


Bound = Callable[..., BindingReader]


@pytest.fixture
def bound(switch: BindingSwitch) -> Iterator[Bound]:
    """``bound(port, ...)``: a bound reader; its fields as in a configuration."""
    with contextlib.ExitStack() as stack:

        def make(port: int, retry: RetryLimits = QUICK, **device: str) -> BindingReader:
            config = BindingConfig("127.0.0.1", port, retry=retry, **device)  # type: ignore[arg-type]
            return stack.enter_context(contextlib.closing(BindingReader(bind("desk", config, switch=switch))))

        yield make


def ask(connection: CardConnection) -> bytes:
    with connection.transaction(deadline=soon()):
        return connection.transmit([SELECT_MF], deadline=soon())


def reasons(error: HardwareError) -> tuple[str, Outcome, bool]:
    return error.message, error.outcome, error.transient


# --- Lost and healed -------------------------------------------------------------------------------------------


def test_a_server_that_was_killed_comes_back(process: ServerProcess, bound: Bound) -> None:
    reader = bound(process.port, vid_pid="04e6:5710")
    events = Events(reader.binding)
    connection = reader.connect(deadline=soon())
    assert ask(connection) == b"\x90\x00"
    process.kill()
    with pytest.raises(DeviceLost):
        ask(connection)
    process.start()
    healed = reader.connect(deadline=soon())

    assert ask(healed) == b"\x90\x00"
    with pytest.raises(DeviceLost) as caught:  # what was lost stays lost: its card is another session's
        ask(connection)
    assert caught.value.outcome is Outcome.NOT_SENT
    told = events.states()
    assert told[:4] == ["connecting", "attached", "lost", "connecting"]
    assert told[-1] == "attached"
    counters = reader.binding.status.counters
    assert (counters.attachments, counters.losses) == (2, 1)
    assert counters.attempts == counters.attachments + counters.failures


def test_keys_work_again_after_their_provider_was_opened_anew(
    process: ServerProcess, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[bindings.desk]\nhost = "127.0.0.1"\nport = {process.port}\nretry = {{ first = 0.01 }}\n')
    monkeypatch.setenv("DEMAIL_HW_CONFIG", str(file))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    for _ in range(2):
        with open_provider("binding:desk", lambda: b"123456", ledger=MemoryPinLedger()) as provider:
            assert provider.identities()
        process.kill()
        process.start()


def test_a_reader_waits_for_its_server(process: ServerProcess, bound: Bound) -> None:
    process.kill()
    reader = bound(process.port)
    events = Events(reader.binding)
    present: list[bool] = []
    thread = threading.Thread(target=lambda: present.append(reader.card_present(deadline=soon())))
    thread.start()
    events.until(BindingState.BACK_OFF)
    process.start()
    thread.join(SECONDS)

    assert present == [True]
    assert (reader.name, reader.serial) == ("CLOUD 2700 F Smart Card Reader", "53692013000000")


def test_waiting_for_a_card_goes_on_with_the_reader_that_came_back(bound: Bound) -> None:
    device = SimulatedUsbReader(None, serial="1")
    with UsbIpServer([device], port=0) as first:
        port = first.port
        reader = bound(port)
        events = Events(reader.binding)
        thread = threading.Thread(target=lambda: reader.wait_for_card(True, deadline=soon()))
        thread.start()
        events.until(BindingState.ATTACHED)
    events.until(BindingState.LOST)
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"), serial="1")], port=port):
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_the_device_is_found_by_its_serial_number_wherever_it_is(bound: Bound) -> None:
    def exports(where: str, other: str) -> dict[str, SimulatedUsbReader]:
        return {where: SimulatedUsbReader(None, serial="1"), other: SimulatedUsbReader(None, serial="2")}

    with UsbIpServer(exports("1-1", "1-2"), port=0) as server:
        reader = bound(server.port, serial="1")
        assert not reader.card_present(deadline=soon())
        assert reader.binding.status.device == "04e6:5710, serial 1, at 1-1"
    with UsbIpServer(exports("1-2", "1-1"), port=server.port):
        assert not reader.card_present(deadline=soon())
        assert reader.binding.status.device == "04e6:5710, serial 1, at 1-2"


def test_several_threads_make_one_attempt_at_a_time(server: UsbIpServer, bound: Bound) -> None:
    reader = bound(server.port, serial="1")
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(reader.card_present(deadline=soon()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)

    assert found == [True] * 8
    assert reader.binding.status.counters.attempts == 1


# --- Somebody else's -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [{"bus_id": "1-1"}, {"serial": "1"}], ids=str)
def test_a_device_that_somebody_has_is_taken_when_it_is_free(
    server: UsbIpServer, bound: Bound, device: dict[str, str]
) -> None:
    holder = connect(Address.parse(f"usbip://127.0.0.1:{server.port}/serial=1"), deadline=soon())
    reader = bound(server.port, **({"bus_id": holder.identity.bus_id} if "bus_id" in device else device))
    events = Events(reader.binding)
    thread = threading.Thread(target=lambda: reader.card_present(deadline=soon()))
    thread.start()
    for _ in range(3):
        events.until(BindingState.BACK_OFF)
    holder.close()
    events.until(BindingState.ATTACHED)
    thread.join(SECONDS)

    assert reader.serial == "1"


def test_whose_time_is_over_is_told_what_was_tried(server: UsbIpServer, bound: Bound) -> None:
    holder = connect(Address.parse(f"usbip://127.0.0.1:{server.port}/serial=1"), deadline=soon())
    with contextlib.closing(holder):
        reader = bound(server.port, NEVER, bus_id=holder.identity.bus_id)
        with pytest.raises(DeviceBusy) as caught:
            reader.connect(deadline=short())

    message, outcome, transient = reasons(caught.value)
    assert message.startswith("The state of the binding 'desk' is back-off, for ")
    assert "after 1 failure: The USB server refused to export device" in message
    assert (outcome, transient) == (Outcome.NOT_SENT, True)
    assert caught.value.remedy


def test_an_attempt_that_the_deadline_cuts_short_hides_nothing() -> None:
    tried: list[float] = []

    def refuse(deadline: float, stop: StopFlag) -> None:
        tried.append(deadline)
        if len(tried) == 1:
            raise DeviceBusy("Somebody has it.")
        threading.Event().wait(max(0.0, deadline - time.monotonic()))  # as a server that says nothing
        raise DeadlineExceeded("The server did not answer.")

    binding = Binding("desk", refuse, limits=QUICK)  # type: ignore[arg-type]
    with pytest.raises(DeviceBusy, match="after 1 failure: Somebody has it"):
        binding.reader(deadline=short())


def test_an_attempt_that_was_called_off_hides_nothing() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def refuse(deadline: float, stop: StopFlag) -> None:
        if begun.is_set():
            raise DeviceBusy("Somebody has it.")
        begun.set()
        assert go_on.wait(SECONDS)
        raise ServerRefused("The server wants nobody.")

    binding = Binding("desk", refuse, limits=NEVER)  # type: ignore[arg-type]

    def ask() -> None:
        with contextlib.suppress(HardwareError):
            binding.reader(deadline=short())

    first = threading.Thread(target=ask)
    first.start()
    assert begun.wait(SECONDS)
    binding.disable()
    binding.enable()
    ask()
    go_on.set()
    first.join(SECONDS)
    assert isinstance(binding.refuse(), DeviceBusy)


def test_a_caller_without_patience_is_no_failure_of_the_device(server: UsbIpServer) -> None:
    address = Address.parse(f"usbip://127.0.0.1:{server.port}/serial=1")

    def slowly(deadline: float, stop: StopFlag) -> UsbIpTransport:
        if deadline < time.monotonic() + SECONDS / 4:
            raise DeadlineExceeded("The server did not answer.")
        return connect(address, deadline=deadline, stop=stop)

    binding = Binding("desk", slowly, limits=RetryLimits(first=1000, longest=1000, attempts=2))
    for _ in range(3):
        with pytest.raises(TransportError, match=r"back-off.*did not answer") as caught:
            binding.reader(deadline=short())
        assert caught.value.transient
    assert binding.status.failures == binding.status.counters.failures == 0
    binding.reader(deadline=soon()).close()
    assert binding.status.counters.attachments == 1
    binding.close()


def test_a_missing_reader_costs_the_others_one_look(bound: Bound) -> None:
    lines: queue.SimpleQueue[AuditLine] = queue.SimpleQueue()
    with UsbIpServer([SimulatedUsbReader(None, serial="1")], port=0, audit=lines.put) as server:
        reader = bound(server.port, serial="absent")
        with pytest.raises(DeviceNotFound, match=r"after [0-9]+ failures"):
            reader.connect(deadline=time.monotonic() + 1)
        assert reader.binding.status.failures > 1
    actions = [lines.get_nowait().action.value for _ in range(lines.qsize())]
    assert actions.count("import") == 1


@pytest.mark.parametrize(
    ("selector", "kind"),
    [({"serial": "3"}, DeviceNotFound), ({}, DeviceNotFound), ({"bus_id": "9-9"}, DeviceNotFound)],
    ids=str,
)
def test_a_device_that_is_not_there(
    server: UsbIpServer, bound: Bound, selector: dict[str, str], kind: type[HardwareError]
) -> None:
    with pytest.raises(kind, match="back-off") as caught:
        bound(server.port, **selector).connect(deadline=short())
    assert caught.value.outcome is Outcome.NOT_SENT


def test_what_no_time_mends_is_told_at_once(switch: BindingSwitch) -> None:
    def refuse(deadline: float, stop: StopFlag) -> None:
        raise ConfigurationError("The key is missing.", file="me.key")

    binding = Binding("desk", refuse, limits=NEVER)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="The key is missing") as caught:
            binding.reader(deadline=soon())
        assert caught.value.file == "me.key"
    assert binding.status.counters.attempts == 1


@pytest.fixture
def guarded(tmp_path: pathlib.Path) -> Iterator[tuple[UsbIpServer, TlsAuthority]]:
    """A server with TLS, and the authority whose clients it lets in."""
    authority = TlsAuthority(tmp_path)
    context = server_context(authority.issue("server", ip="127.0.0.1"))
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=0, context=context) as running:
        yield running, authority


def through_tls(server: UsbIpServer, files: TlsFiles, ca: str) -> BindingConfig:
    assert files.key is not None
    tls = TlsConfig(pathlib.Path(files.certificate), pathlib.Path(files.key), pathlib.Path(ca))
    return BindingConfig("127.0.0.1", server.port, serial="53692013000000", tls=tls, retry=NEVER)


def test_a_reader_behind_tls(guarded: tuple[UsbIpServer, TlsAuthority], switch: BindingSwitch) -> None:
    server, authority = guarded
    config = through_tls(server, authority.issue("client"), authority.ca)
    with contextlib.closing(BindingReader(bind("desk", config, switch=switch))) as reader:
        assert ask(reader.connect(deadline=soon())) == b"\x90\x00"


def test_an_address_without_files_has_those_of_the_configuration(
    guarded: tuple[UsbIpServer, TlsAuthority], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, authority = guarded
    files = authority.issue("client")
    stranger = TlsAuthority(tmp_path, "stranger")
    file = tmp_path / "config.toml"
    monkeypatch.setenv("DEMAIL_HW_CONFIG", str(file))
    address = f"usbips://127.0.0.1:{server.port}/"

    def write(ca: str) -> None:
        lines = {"certificate": files.certificate, "key": files.key, "ca": ca}
        file.write_text("[tls]\n" + "".join(f'{name} = "{path}"\n' for name, path in lines.items()))

    write(authority.ca)
    (info,) = find_readers(address)
    assert info.address == f"{address}1-1"  # the files are those of the configuration here too
    open_reader(info.address).close()
    write(stranger.ca)
    with pytest.raises(TransportError, match="refused here") as caught:
        find_readers(address)
    assert "the authority of tls.ca issued it" in caught.value.remedy
    with pytest.raises(ServerRefused, match="demands a client certificate"):
        find_readers(f"{address}?ca={authority.ca}")  # it names its own: nothing is mixed


def test_a_refused_server_names_the_bindings_key(
    guarded: tuple[UsbIpServer, TlsAuthority], switch: BindingSwitch, tmp_path: pathlib.Path
) -> None:
    server, authority = guarded
    config = through_tls(server, authority.issue("client"), TlsAuthority(tmp_path, "stranger").ca)
    with contextlib.closing(BindingReader(bind("desk", config, switch=switch))) as reader:
        with pytest.raises(TransportError) as caught:
            reader.connect(deadline=soon())
        assert "the authority of bindings.desk.tls.ca issued it" in caught.value.remedy


def test_a_certificate_that_is_refused_is_told_at_once(
    guarded: tuple[UsbIpServer, TlsAuthority], switch: BindingSwitch, tmp_path: pathlib.Path
) -> None:
    server, authority = guarded
    config = through_tls(server, TlsAuthority(tmp_path, "stranger").issue("client"), authority.ca)
    with contextlib.closing(BindingReader(bind("desk", config, switch=switch))) as reader:
        with pytest.raises(ServerRefused, match="refused the client certificate") as caught:
            reader.connect(deadline=soon())
        assert (caught.value.transient, caught.value.layer) == (False, Layer.TLS)
        assert reader.binding.status.counters.attempts == 1


def test_a_forked_child_is_told_that_the_reader_is_its_parents(server: UsbIpServer, bound: Bound) -> None:
    reader = bound(server.port, serial="1")
    assert reader.card_present(deadline=soon())
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads
        child = os.fork()
    if not child:
        try:
            reader.card_present(deadline=soon())
        except DeviceLost as error:
            os.write(writing, error.message.encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert b"belongs to the process that opened it" in pipe.read()
    assert reader.card_present(deadline=soon())


# --- The switch ------------------------------------------------------------------------------------------------


def test_the_switch_ends_the_wait_and_begins_it_again(server: UsbIpServer, bound: Bound) -> None:
    reader = bound(server.port, NEVER, serial="3")
    events = Events(reader.binding)
    errors: list[HardwareError] = []

    def wait() -> None:
        try:
            reader.connect(deadline=soon())
        except HardwareError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    events.until(BindingState.BACK_OFF)
    reader.binding.disable()
    thread.join(SECONDS)

    assert isinstance(errors[0], TransportError)
    assert "is off" in errors[0].message
    assert not errors[0].transient


def test_what_is_switched_off_is_let_go(server: UsbIpServer, bound: Bound, switch: BindingSwitch) -> None:
    reader = bound(server.port, serial="1")
    assert reader.card_present(deadline=soon())
    switch.switch_off("desk")
    switch.switch_off("desk")
    with pytest.raises(TransportError, match="switched off") as caught:
        reader.card_present(deadline=soon())
    assert caught.value.remedy == "Switch it on: demail-hw binding on desk."
    connect(Address.parse(f"usbip://127.0.0.1:{server.port}/serial=1"), deadline=soon()).close()
    switch.switch_on("desk")
    assert reader.card_present(deadline=soon())


def test_the_switch_turns_nothing_on_that_it_did_not_turn_off() -> None:
    off = [False]

    def fail(deadline: float, stop: StopFlag) -> None:
        pytest.fail("it attaches")

    binding = Binding("desk", fail, enabled=False, is_off=lambda: off[0])  # type: ignore[arg-type]
    for now in (True, False):
        off[0] = now
        with pytest.raises(TransportError, match="off") as caught:
            binding.reader(deadline=short())
        assert ("demail-hw binding on desk" in caught.value.remedy) is now


def test_the_switch_does_not_undo_what_the_program_did(server: UsbIpServer, bound: Bound) -> None:
    off = [False]
    address = Address.parse(f"usbip://127.0.0.1:{server.port}/serial=1")
    binding = Binding("desk", lambda end, stop: connect(address, deadline=end, stop=stop), is_off=lambda: off[0])
    binding.disable()
    for now in (True, False):
        off[0] = now
        with pytest.raises(TransportError, match="off"):
            binding.reader(deadline=short())
    binding.enable()
    assert binding.reader(deadline=soon()).serial == "1"
    binding.close()


@pytest.mark.parametrize("ending", ["disable", "close"])
def test_an_attempt_ends_when_the_binding_is_let_go(
    bound: Bound, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(binding_module, "_ATTEMPT_SECONDS", 10 * SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        binding = bound(listener.getsockname()[1]).binding
        keeper = threading.Thread(target=binding.keep)
        keeper.start()
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(SECONDS)
            assert len(connection.recv(8, socket.MSG_WAITALL)) == 8  # it was asked for its devices, and says nothing
            getattr(binding, ending)()
            assert connection.recv(1) == b""
        binding.close()
        keeper.join(SECONDS)
        assert not keeper.is_alive()
    assert binding.status.counters.failures == 0


def test_a_closed_reader_stays_closed(server: UsbIpServer, bound: Bound) -> None:
    reader = bound(server.port, serial="1")
    reader.close()
    reader.binding.enable()
    with pytest.raises(TransportError, match="It was closed"):
        reader.connect(deadline=soon())
    reader.close()


def test_a_binding_that_is_given_up(process: ServerProcess, bound: Bound) -> None:
    process.kill()
    reader = bound(process.port, RetryLimits(first=0.001, longest=0.001, attempts=3))
    with pytest.raises(TransportError, match="given up after 3 failures") as caught:
        reader.connect(deadline=soon())
    assert reader.binding.status.given_up
    assert "retry.attempts" in caught.value.remedy
    assert not caught.value.transient
    process.start()
    reader.binding.enable()
    assert reader.card_present(deadline=soon())


def test_the_kernels_binding_is_no_reader_of_ours() -> None:
    with pytest.raises(ConfigurationError, match="the kernel's"):
        bind("desk", BindingConfig("h", mode=BindingMode.KERNEL))


# --- Kept ------------------------------------------------------------------------------------------------------


@pytest.fixture
def keep() -> Iterator[Callable[[Binding], None]]:
    """``keep(binding)``: kept by a thread to the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(binding: Binding) -> None:
            thread = threading.Thread(target=binding.keep)
            thread.start()
            stack.callback(thread.join, SECONDS)
            stack.callback(binding.close)

        yield start


def test_a_kept_reader_comes_back_though_nobody_asks(
    process: ServerProcess, bound: Bound, keep: Callable[[Binding], None]
) -> None:
    binding = bound(process.port).binding
    events = Events(binding)
    keep(binding)
    for _ in range(2):
        events.until(BindingState.ATTACHED)
        process.kill()
        assert "lost" in events.until(BindingState.LOST).reason
        process.start()
    events.until(BindingState.ATTACHED)


def test_a_kept_reader_can_be_used_meanwhile(
    server: UsbIpServer, bound: Bound, keep: Callable[[Binding], None]
) -> None:
    reader = bound(server.port, serial="1")
    keep(reader.binding)
    connection = reader.connect(deadline=soon())
    assert [ask(connection) for _ in range(50)] == [b"\x90\x00"] * 50
    assert reader.binding.status.counters.attempts == 1


def test_an_attempt_of_a_kept_reader_may_last_longer_than_a_look(keep: Callable[[Binding], None]) -> None:
    given: queue.SimpleQueue[float] = queue.SimpleQueue()

    def note(deadline: float, stop: StopFlag) -> None:
        given.put(deadline - time.monotonic())
        raise DeadlineExceeded("The server did not answer.")

    binding = Binding("desk", note, limits=NEVER)  # type: ignore[arg-type]
    events = Events(binding)
    keep(binding)
    assert given.get(timeout=SECONDS) > 5
    events.until(BindingState.BACK_OFF)
    assert binding.status.failures == 1  # an attempt that had its whole time


class Asked(SimulatedUsbReader):
    """Says when it was sent something by bulk: the CCID commands."""

    def __init__(self) -> None:
        super().__init__(None, serial="1")
        self.commands: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        if transfer.data:
            self.commands.put(bytes(transfer.data[:1]))
        super().submit(transfer, complete)


def test_a_kept_reader_is_asked_for_a_sign_of_life(
    bound: Bound, keep: Callable[[Binding], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demail_hw_drivers.binding._LOOK_SECONDS", 0.05)
    monkeypatch.setattr("demail_hw_drivers.binding._HEARTBEAT_SECONDS", 0.1)
    device = Asked()
    with UsbIpServer([device], port=0) as server:
        keep(bound(server.port).binding)
        asked = 0
        while asked < 3:
            asked += device.commands.get(timeout=SECONDS) == b"\x65"  # PC_to_RDR_GetSlotStatus


def test_a_kept_reader_that_answers_nothing_any_more_is_imported_anew(
    bound: Bound, keep: Callable[[Binding], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demail_hw_drivers.binding._LOOK_SECONDS", 0.05)
    monkeypatch.setattr("demail_hw_drivers.binding._HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr("demail_hw_drivers.binding._DEAF_SECONDS", 0.3)
    device = Deaf(SimulatedUsbReader(None, serial="1"))
    with UsbIpServer([device], port=0) as server:
        binding = bound(server.port).binding
        events = Events(binding)
        keep(binding)
        events.until(BindingState.ATTACHED)
        device.deaf = True
        events.until(BindingState.LOST)
        events.until(BindingState.ATTACHED)
        assert not device.deaf


def test_a_listener_that_has_heard_enough(server: UsbIpServer, bound: Bound) -> None:
    reader = bound(server.port, serial="1")
    events = Events(reader.binding)
    events.stop()
    events.stop()
    assert reader.card_present(deadline=soon())
    assert events.states() == []


# --- The command line ------------------------------------------------------------------------------------------


@pytest.fixture
def settings(process: ServerProcess, tmp_path: pathlib.Path) -> dict[str, str]:
    """The environment of a command whose configuration has the binding ``desk``."""
    file = tmp_path / "named.toml"
    file.write_text(
        f'[bindings.desk]\nhost = "127.0.0.1"\nport = {process.port}\nserial = "53692013000000"\n'
        "retry = { first = 0.05, busy = 0.05, stable = 0 }\n"
    )
    return {**os.environ, "DEMAIL_HW_CONFIG": str(file), "STATE_DIRECTORY": str(tmp_path)}


def run(environment: dict[str, str], *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "demail_hw.cli", *words], env=environment, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def test_a_card_behind_a_binding(settings: dict[str, str]) -> None:
    code, out, err = run(settings, "card", "info", "binding:desk", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["reader"]["serial"] == "53692013000000"


def test_status_and_switch(settings: dict[str, str]) -> None:
    def status() -> dict[str, object]:
        code, out, _ = run(settings, "binding", "status", "--json")
        assert code == 0
        (only,) = json.loads(out)["bindings"]
        return dict(only)

    assert status()["on"] is True
    assert len(status()["listed"]) == 1  # type: ignore[arg-type]
    assert run(settings, "binding", "off", "desk")[:2] == (0, "desk: switched off\n")
    assert status()["on"] is False
    code, _, err = run(settings, "card", "info", "binding:desk")
    assert (code, "demail-hw binding on desk" in err) == (6, True)
    assert "The state of the binding 'desk' is off: It is switched off." in err
    assert run(settings, "binding", "on", "desk")[:2] == (0, "desk: on\n")
    assert run(settings, "card", "info", "binding:desk")[0] == 0
    assert run(settings, "binding", "off", "dusk")[0] == 9


def test_the_switch_does_not_enable(settings: dict[str, str]) -> None:
    file = pathlib.Path(settings["DEMAIL_HW_CONFIG"])
    file.write_text(f"{file.read_text()}enabled = false\n")
    stays = f"desk: the switch is on, but bindings.desk.enabled is false in {file}\n"
    assert run(settings, "binding", "on", "desk")[:2] == (0, stays)
    assert json.loads(run(settings, "binding", "on", "desk", "--json")[1])["enabled"] is False


def test_status_is_a_table(settings: dict[str, str], process: ServerProcess) -> None:
    with pathlib.Path(settings["DEMAIL_HW_CONFIG"]).open("a") as file:
        file.write('[bindings.absent-reader]\nhost = "127.0.0.1"\nport = 1\nvid_pid = "04e6:5710"\n')
        file.write('[bindings.idle]\nhost = "127.0.0.1"\nport = 1\nenabled = false\n')
        file.write(f'[bindings.only]\nhost = "127.0.0.1"\nport = {process.port}\n')
        file.write(f'[bindings.other]\nhost = "127.0.0.1"\nport = {process.port}\nserial = "1"\n')
        file.write(f'[bindings.used]\nhost = "127.0.0.1"\nport = {process.port}\nvid_pid = "1234:5678"\n')
    assert run(settings, "binding", "off", "desk")[0] == 0
    code, out, _ = run(settings, "binding", "status", "desk", "absent-reader", "idle", "used", "only", "other")
    head, *rows = out.splitlines()
    ends = (head.index("state"), head.index("device"), head.index("on the server"))
    cut = [[row[: ends[0]], row[ends[0] : ends[1]], row[ends[1] : ends[2]], row[ends[2] :]] for row in rows]
    assert code == 0
    assert [[part.strip() for part in row] for row in cut] == [
        [
            "desk           user",
            "switched off",
            "53692013000000 at 127.0.0.1",
            f"usbip://127.0.0.1:{process.port}/1-1",
        ],
        ["absent-reader  user", "not reached", "04e6:5710 at 127.0.0.1", cut[1][3]],
        ["idle           user", "not enabled", "the only reader at 127.0.0.1", cut[2][3]],
        ["used           user", "not listed", "1234:5678 at 127.0.0.1", "absent, or in use"],
        ["only           user", "free", "the only reader at 127.0.0.1", f"usbip://127.0.0.1:{process.port}/1-1"],
        ["other          user", "perhaps free", "1 at 127.0.0.1", f"usbip://127.0.0.1:{process.port}/1-1"],
    ]
    assert "no USB server at 127.0.0.1:1" in cut[1][3]
    assert cut[1][3].endswith("Check its address, and that it runs.")


def test_the_switch_is_in_the_state_folder(settings: dict[str, str], tmp_path: pathlib.Path) -> None:
    elsewhere = ("--state-dir", str(tmp_path / "elsewhere"))
    assert run(settings, *elsewhere, "binding", "off", "desk")[0] == 0
    assert run(settings, "card", "info", "binding:desk")[0] == 0
    code, _, err = run(settings, *elsewhere, "card", "info", "binding:desk")
    assert (code, "switched off" in err) == (6, True)
    assert json.loads(run(settings, *elsewhere, "binding", "status", "--json")[1])["bindings"][0]["on"] is False


@pytest.mark.parametrize(
    ("more", "code", "told", "remedy"),
    [
        (
            "retry = { first = 0.001, attempts = 2 }",
            6,
            "given up after 2 failures",
            "bindings.gone.retry.attempts = 0",
        ),
        ("enabled = false", 9, "is not enabled", "[bindings.gone]"),
    ],
)
def test_watching_what_does_not_come(tmp_path: pathlib.Path, more: str, code: int, told: str, remedy: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[bindings.gone]\nhost = "127.0.0.1"\nport = 1\n{more}\n')
    environment = {**os.environ, "STATE_DIRECTORY": str(tmp_path)}
    ended, out, err = run(environment, "--config", str(file), "binding", "watch", "gone", "--json")
    error = json.loads(err)["error"]
    assert (ended, told in error["message"], remedy in error["remedy"]) == (code, True, True), err
    states = [json.loads(line)["state"] for line in out.splitlines()]
    assert states in ([], ["connecting", "back-off", "connecting", "off"])


def test_watching(settings: dict[str, str], process: ServerProcess) -> None:
    words = [sys.executable, "-m", "demail_hw.cli", "binding", "watch", "desk", "--json"]
    watching = subprocess.Popen(words, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None

    def until(state: str) -> None:
        assert watching.stdout is not None
        while json.loads(watching.stdout.readline())["state"] != state:
            pass

    until("attached")
    process.kill()
    until("lost")
    process.start()
    until("attached")
    assert run(settings, "binding", "off", "desk")[0] == 0
    until("off")
    assert run(settings, "binding", "on", "desk")[0] == 0
    until("attached")
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=SECONDS)
    assert (watching.returncode, err) == (0, "")


def test_bound_readers_and_their_cards_are_watched(settings: dict[str, str]) -> None:
    with pathlib.Path(settings["DEMAIL_HW_CONFIG"]).open("a") as file:
        file.write('[bindings.gone]\nhost = "127.0.0.1"\nport = 1\nretry = { first = 1000, longest = 1000 }\n')
    words = [sys.executable, "-m", "demail_hw.cli", "readers", "--watch", "binding:", "--json"]
    watching = subprocess.Popen(words, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    seen = [json.loads(watching.stdout.readline()) for _ in range(2)]
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=SECONDS)
    assert [(each["event"], each["address"], each["serial"]) for each in seen] == [
        ("reader arrived", "binding:desk", "53692013000000"),
        ("card inserted", "binding:desk", "53692013000000"),
    ]
    assert watching.returncode == 0
    assert "binding:gone: " in json.loads(err)["warning"]


@pytest.mark.parametrize("address", ["xyz:", "binding:dusk", "binding:"])
def test_what_no_time_mends_ends_the_watch(tmp_path: pathlib.Path, address: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[bindings]\n")
    assert run(dict(os.environ), "--config", str(file), "readers", "--watch", address)[0] == 9


def test_readers_without_an_address_are_those_of_the_configuration_too(settings: dict[str, str]) -> None:
    code, out, _ = run(settings, "readers", "--json")
    assert (code, json.loads(out)["readers"][0]["address"]) == (0, "binding:desk")


def test_who_watches_what_is_switched_off_is_told_what_for(settings: dict[str, str]) -> None:
    assert run(settings, "binding", "off", "desk")[0] == 0
    words = [sys.executable, "-m", "demail_hw.cli", "binding", "watch", "desk"]
    with subprocess.Popen(words, env=settings, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().endswith("Waiting for: demail-hw binding on desk\n")
        watching.send_signal(signal.SIGINT)


def test_the_bindings_are_listed(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMAIL_HW_CONFIG", settings["DEMAIL_HW_CONFIG"])
    (info,) = find_readers("binding:")
    assert (info.address, info.serial) == ("binding:desk", "53692013000000")
    assert find_readers("binding:desk") == (info,)
    for look_up in (find_readers, open_reader):
        with pytest.raises(ConfigurationError, match="no binding 'dusk'; it has desk"):
            look_up("binding:dusk")


def test_a_configuration_is_checked(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text('[cards.a]\nreader = "sim:netkey3"\npin = "918273"\n[bindings.b]\nhst = "h"\n')
    code, out, err = run(dict(os.environ), "--config", str(file), "config", "check")
    assert code == 9
    assert f"{file}:3: cards.a.pin: it is no PIN source" in out
    assert f"{file}:5: bindings.b.hst: there is no such key. Did you mean host?" in out
    assert "918273" not in out + err


def test_addresses_that_mean_nothing_are_mistakes_and_files_that_are_not_there_warnings(
    tmp_path: pathlib.Path,
) -> None:
    cards = ("binding:nope", "usbip://x/foo", "xyz:", "usbip://x/?profile=tpdu", "sim:nope", "sim:netkey3")
    exports = ("pcsc:", "sim:nope", "libusb:foo", "libusb:", "libusb:")
    file = tmp_path / "wrong.toml"
    file.write_text(
        "".join(f'[cards.c{number}]\nreader = "{reader}"\n' for number, reader in enumerate(cards))
        + "".join(f'[[server.exports]]\ndevice = "{device}"\n' for device in exports)
        + '[cards.last]\nreader = "sim:"\npin = "file:/nowhere/pin"\n'
        + '[tls]\ncertificate = "none.pem"\nkey = "k"\nca = "none.pem"\n'
    )
    code, out, _ = run(dict(os.environ), "--config", str(file), "config", "check", "--json")
    told = json.loads(out)
    assert code == 9
    assert [each["line"] for each in told["problems"]] == [2, 4, 6, 8, 10, 14, 16, 18, 22]
    assert [each["key"] for each in told["warnings"]] == ["cards.last.pin", "tls"]


def test_a_configuration_is_shown(settings: dict[str, str]) -> None:
    code, out, _ = run(settings, "config", "show", "--json")
    assert (code, json.loads(out)["bindings"]["desk"]["retry"]["busy"]) == (0, 0.05)
    code, out, _ = run(settings, "config", "path")
    assert (code, out) == (0, f"* {settings['DEMAIL_HW_CONFIG']}\n")
    code, out, _ = run(settings, "config", "schema")
    assert (code, "BindingConfig" in json.loads(out)["$defs"]) == (0, True)
    code, _, err = run(settings, "--config", "/nonexistent.toml", "config", "show")
    assert (code, "is not there" in err) == (9, True)
