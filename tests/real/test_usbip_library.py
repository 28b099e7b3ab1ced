"""A USB/IP library that nobody here wrote (PyPI ``usbip``): as client of our server, and as server for our client."""

import contextlib
import time
from collections.abc import Iterator

import pytest
import usbip
from usbip.host import list_devices

from child_process import Child
from demail_hw.address import Address
from demail_hw.interfaces import Timeouts
from demail_hw_drivers.usbip_client import UsbIpReaders
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader

SECONDS = 20.0
POWER_ON = bytes.fromhex("62 00000000 00 00 00 0000")
GET_SLOT_STATUS = bytes.fromhex("65 00000000 00 01 000000")
DATA_BLOCK = 0x80
HEADER = 10
BULK_OUT, BULK_IN = 0x01, 0x82


@pytest.fixture
def server() -> Iterator[UsbIpServer]:
    with UsbIpServer([SimulatedUsbReader(open_card("netkey3"))], port=0) as running:
        yield running


def test_its_client_lists_imports_and_powers_the_card(server: UsbIpServer) -> None:
    transport = usbip.USBIP("127.0.0.1", server.port)
    (listed,) = list_devices(transport)
    assert (listed["busid"], listed["idVendor"], listed["idProduct"]) == ("1-1", 0x04E6, 0x5710)

    with usbip.open(0x04E6, 0x5710, transport=transport) as handle:
        handle.bulk_out(BULK_OUT, POWER_ON)
        answer = handle.bulk_in(BULK_IN, 1034)
        assert answer[0] == DATA_BLOCK
        assert answer[HEADER:] == open_card("netkey3").power_on()
        with pytest.raises(usbip.Stall):
            handle.bulk_in(0x89, 64)
        assert list_devices(transport) == []
        with contextlib.closing(usbip.Connection(transport.connect())) as second, pytest.raises(usbip.USBError):
            second.import_device("1-1")
        handle.bulk_out(BULK_OUT, GET_SLOT_STATUS)
        assert len(handle.bulk_in(BULK_IN, 1034)) == HEADER
    assert server.counters.refused == 1


# A reader behind that library's server: our simulated one, handed what the library receives.
LIBRARY_SERVER = """
import sys
import usbip
from demail_hw.interfaces import Transfer
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import UTRUST_2700F, SimulatedUsbReader

reader = SimulatedUsbReader(open_card("netkey3"))


class Ccid(usbip.Interface):
    bInterfaceClass = 0x0B
    commands = usbip.Out(0x01)
    answers = usbip.In(0x82)

    def extra_descriptors(self):
        return UTRUST_2700F.descriptor.encode()

    def on_out(self, endpoint, data):
        reader.submit(Transfer(0x01, data=bytes(data)), lambda result: None)
        reader.submit(Transfer(0x82, 1034), lambda result: self.answers.write(result.data))


device = usbip.USBDevice(0x04E6, 0x5710, product="A stranger's reader", serial="4711")
device.add(Ccid())
via = usbip.USBIP("127.0.0.1", 0)
with device.plug(via=via):
    print(via._listener.socks[0].getsockname()[1], flush=True)
    sys.stdin.readline()
"""


def test_our_client_uses_a_card_behind_its_server() -> None:
    with Child(LIBRARY_SERVER) as child:
        address = Address("usbip", "127.0.0.1", int(child.hear()))
        (found,) = UsbIpReaders().find(address, timeouts=Timeouts())
        assert "04e6:5710" in found.name
        deadline = time.monotonic() + SECONDS
        reader = UsbIpReaders().open(address, timeouts=Timeouts())
        with contextlib.closing(reader), contextlib.closing(reader.connect(deadline=deadline)) as card:
            assert reader.serial == "4711"
            assert card.atr == open_card("netkey3").power_on()
            with card.transaction(deadline=deadline):
                for _ in range(20):
                    assert card.transmit([bytes.fromhex("00a4000c023f00")], deadline=deadline) == b"\x90\x00"
        child.tell()
