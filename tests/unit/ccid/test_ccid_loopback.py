"""The cable of no length: waiting, cancelling, counting, unplugging."""

import errno
import threading
import time
from collections.abc import Callable

import pytest

from demail_hw.errors import (
    DeadlineExceeded,
    DeviceLost,
    Outcome,
    TransferStalled,
    TransferTimeout,
    TransportError,
)
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.loopback import LoopbackTransport

GET_SLOT_STATUS = bytes.fromhex("65000000000000000000")
SLOT_STATUS = bytes.fromhex("81000000000000020000")


def soon() -> float:
    return time.monotonic() + 20


def short() -> float:
    return time.monotonic() + 0.05


class ScriptedDevice(SimulatedUsbReader):
    """A reader whose bulk transfers end as they are told to; ``None`` leaves them pending."""

    def __init__(self) -> None:
        super().__init__(None)
        self.results: list[int | None] = []
        self.pending: list[tuple[Transfer, Callable[[TransferResult], None]]] = []
        self.submitted = threading.Event()

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        if transfer.setup:
            super().submit(transfer, complete)
            return
        status = self.results.pop(0)
        if status is None:
            self.pending.append((transfer, complete))
            self.submitted.set()
        else:
            complete(TransferResult(status))

    def cancel(self, transfer: Transfer) -> bool:
        before = len(self.pending)
        self.pending = [each for each in self.pending if each[0] is not transfer]
        return len(self.pending) < before


def test_identity_is_read_from_the_device() -> None:
    cable = LoopbackTransport(SimulatedUsbReader(None, serial="12345678901234"), bus_id="2-1")
    assert cable.identity[:-1] == (0x04E6, 0x5710, "12345678901234", "CLOUD 2700 F Smart Card Reader", "2-1", 0x0003)
    assert cable.configuration == SimulatedUsbReader(None).configuration_descriptor


def test_exchange_is_one_round_trip() -> None:
    cable = LoopbackTransport(SimulatedUsbReader(None))
    before = cable.counters
    assert cable.exchange((GET_SLOT_STATUS[:4], GET_SLOT_STATUS[4:]), 64, deadline=soon()) == SLOT_STATUS
    urbs, round_trips, out, into = (after - first for after, first in zip(cable.counters, before, strict=True))
    assert (urbs, round_trips, out, into) == (2, 1, 10, 10)


def test_single_transfers() -> None:
    cable = LoopbackTransport(SimulatedUsbReader(None))
    cable.bulk_out((GET_SLOT_STATUS,), deadline=soon())
    assert cable.bulk_in(64, deadline=soon()) == SLOT_STATUS
    assert cable.interrupt_in(deadline=soon()).hex() == "5002"


def test_nothing_is_sent_after_the_deadline() -> None:
    cable = LoopbackTransport(SimulatedUsbReader(None))
    before = cable.counters
    with pytest.raises(DeadlineExceeded) as caught:
        cable.exchange((GET_SLOT_STATUS,), 64, deadline=time.monotonic())
    assert caught.value.outcome is Outcome.NOT_SENT
    assert cable.counters == before


def test_pending_transfer_is_taken_back_at_the_deadline() -> None:
    device = SimulatedUsbReader(None)
    cable = LoopbackTransport(device)
    with pytest.raises(DeadlineExceeded) as caught:
        cable.bulk_in(64, deadline=short())
    assert caught.value.outcome is Outcome.UNKNOWN
    assert cable.exchange((GET_SLOT_STATUS,), 64, deadline=soon()) == SLOT_STATUS


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EPIPE, TransferStalled),
        (errno.ENODEV, DeviceLost),
        (errno.ESHUTDOWN, DeviceLost),
        (errno.ETIMEDOUT, TransferTimeout),
        (errno.EPROTO, TransportError),
    ],
)
def test_status_of_a_transfer_is_a_typed_error(number: int, kind: type[TransportError]) -> None:
    device = ScriptedDevice()
    cable = LoopbackTransport(device)
    device.results = [-number]
    with pytest.raises(kind):
        cable.bulk_out((b"x",), deadline=soon())
    device.results = [0, -number]
    with pytest.raises(kind) as caught:
        cable.exchange((b"x",), 64, deadline=soon())
    assert caught.value.outcome is Outcome.UNKNOWN


def test_answer_is_taken_back_if_the_command_failed() -> None:
    device = ScriptedDevice()
    cable = LoopbackTransport(device)
    device.results = [-errno.EPIPE, None]
    with pytest.raises(TransferStalled) as caught:
        cable.exchange((b"x",), 64, deadline=soon())
    assert caught.value.outcome is Outcome.REFUSED
    assert not device.pending


def test_transfer_that_completes_in_another_thread_is_waited_for() -> None:
    device = ScriptedDevice()
    cable = LoopbackTransport(device)
    device.results = [None]

    def complete() -> None:
        assert device.submitted.wait(20)
        device.pending.pop()[1](TransferResult(0, b"late"))

    thread = threading.Thread(target=complete)
    thread.start()
    assert cable.bulk_in(64, deadline=soon()) == b"late"
    thread.join(20)


def test_unplugging_wakes_who_waits() -> None:
    device = ScriptedDevice()
    cable = LoopbackTransport(device)
    device.results = [None]

    def unplug() -> None:
        assert device.submitted.wait(20)
        cable.close()

    thread = threading.Thread(target=unplug)
    thread.start()
    with pytest.raises(DeviceLost) as caught:
        cable.interrupt_in(deadline=soon())
    thread.join(20)
    assert caught.value.outcome is Outcome.UNKNOWN
    with pytest.raises(DeviceLost) as caught:
        cable.bulk_in(64, deadline=soon())
    assert caught.value.outcome is Outcome.NOT_SENT
    cable.close()


def test_stall_is_cleared() -> None:
    device = SimulatedUsbReader(None)
    cable = LoopbackTransport(device)
    cable.control(bytes.fromhex("0203000001000000"), deadline=soon())
    with pytest.raises(TransferStalled):
        cable.bulk_out((GET_SLOT_STATUS,), deadline=soon())
    cable.clear_halt(0x01, deadline=soon())
    assert cable.exchange((GET_SLOT_STATUS,), 64, deadline=soon()) == SLOT_STATUS
