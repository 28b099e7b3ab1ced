"""Which readers of a server are looked at again for their serial numbers, with a clock of the test's own."""

import dataclasses

from demail_hw.usbip.messages import UsbDevice
from demail_hw_drivers.usbip_serials import SerialMemory

ONE = UsbDevice("/sys/1-1", "1-1", 1, 2, 3, 0x04E6, 0x5710, 3, 0, 0, 0, 1, 1, 1)
TWO = dataclasses.replace(ONE, bus_id="1-2", device_number=3)


def test_a_new_device_is_looked_at() -> None:
    assert SerialMemory().candidates("a", [ONE, TWO], 0.0) == [ONE, TWO]


def test_the_one_that_had_it_is_the_first() -> None:
    memory = SerialMemory()
    memory.note(TWO, "a", 0.0)
    assert memory.candidates("a", [ONE, TWO], 0.0) == [TWO, ONE]
    assert memory.candidates("b", [ONE, TWO], 0.0) == [ONE]


def test_looks_become_rare() -> None:
    memory, now, waits = SerialMemory(), 0.0, []
    for _ in range(10):
        memory.note(ONE, "other", now)
        wait = 5.0
        while not memory.candidates("a", [ONE], now + wait):
            wait += 5.0
        waits.append(wait)
        now += wait
    assert waits == [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]


def test_another_device_in_the_same_socket_is_new() -> None:
    memory = SerialMemory()
    memory.note(ONE, "other", 0.0)
    successor = dataclasses.replace(ONE, device_number=9)
    assert memory.candidates("a", [ONE, successor], 0.0) == [successor]


def test_a_server_with_ever_new_devices_fills_no_memory() -> None:
    memory = SerialMemory()
    devices = [dataclasses.replace(ONE, device_number=number) for number in range(300)]
    for device in devices:
        memory.note(device, "other", 0.0)
    assert memory.candidates("a", devices, 0.0) == devices[:44]
