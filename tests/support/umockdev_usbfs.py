"""A USB device in a test bed of umockdev, whose transfers go to a USB/IP server (see umockdev.py).

    /usr/bin/python3 umockdev_usbfs.py SOURCE HOST PORT BUS_ID

It runs under the system's Python, because umockdev's binding is there. SOURCE is the folder of the package: its
USB/IP client is imported, and of the rest nothing. A program with libumockdev-preload.so finds the device under /sys
and /dev; what it asks of /dev/bus/usb comes here as an ioctl, and goes on as CMD_SUBMIT and CMD_UNLINK.

Standard output says where the test bed is, when it is ready. At the end of standard input the process ends.
"""

import collections
import enum
import errno
import os
import pathlib
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

SOURCE = pathlib.Path(sys.argv[1])
# The package itself imports what the system's Python is too old for.
sys.modules["demail_hw"] = types.ModuleType("demail_hw")
sys.modules["demail_hw"].__path__ = [str(SOURCE / "demail_hw")]

import gi  # noqa: E402

gi.require_version("UMockdev", "1.0")
from gi.repository import UMockdev  # noqa: E402

from demail_hw.usb.descriptors import (  # noqa: E402
    CONFIGURATION_HEADER_SIZE,
    DEVICE_DESCRIPTOR_SIZE,
    LANGUAGE_ENGLISH_US,
    MAX_STRING_DESCRIPTOR,
    ConfigurationDescriptor,
    DescriptorType,
    DeviceDescriptor,
    InterfaceDescriptor,
    configuration_total_length,
    decode_string,
)
from demail_hw.usb.setup import clear_endpoint_halt, get_descriptor, set_configuration  # noqa: E402
from demail_hw.usbip.client import ClientEvent, UsbIpClient  # noqa: E402
from demail_hw.usbip.events import NEED_DATA, Closed, NeedData, UrbCompleted, UrbUnlinked  # noqa: E402
from demail_hw.usbip.messages import (  # noqa: E402
    NO_SETUP,
    CmdSubmit,
    CmdUnlink,
    Direction,
    OpRepImport,
    OpReqImport,
)

DEVICE: Final = "/devices/pci0000:00/0000:00:14.0/usb1/1-1"
NODE: Final = "bus/usb/001/002"


# linux/usbdevice_fs.h, on a machine with pointers of 64 bits.
class Ioctl(enum.IntEnum):
    CLAIM = 0x8004550F
    SUBMIT = 0x8038550A
    REAP = 0x4008550C
    REAP_NOW = 0x4008550D
    DISCARD = 0x550B
    CAPABILITIES = 0x8004551A
    GET_DRIVER = 0x41045508
    CLEAR_HALT = 0x80045515
    RESET = 0x5514


HELD: Final = "USBFS_HELD" in os.environ
"""Somebody else has claimed the interface."""
ACCEPTED: Final = frozenset({Ioctl.CLAIM, 0x80045510, 0x80045505, 0x80085504})
"""CLAIMINTERFACE, RELEASEINTERFACE, SETCONFIGURATION, SETINTERFACE: the server has done what they ask."""
ZERO_PACKET_AND_NO_SIZE_LIMIT: Final = 0x05
"""Without the second, libusb cuts a transfer into several."""
URB_SIZE, URB_ENDPOINT, URB_STATUS, URB_BUFFER, URB_LENGTH, URB_ACTUAL = 56, 1, 4, 16, 24, 28
CONTROL: Final = 2
SETUP_SIZE: Final = 8
DIRECTION_IN: Final = 0x80
UNLINKED: Final = -errno.ENOENT

IMPORT_SECONDS: Final = 20.0
BUSY_SECONDS: Final = 0.005
"""Between two questions whether the device is free."""

NOTHING_TO_REAP_SECONDS: Final = 0.0005
"""The file is always ready as far as poll knows, so that libusb asks again and again."""


class Pending(NamedTuple):
    """A transfer under way: the open file it came by, its urb, and where the data of an IN transfer goes."""

    client: Any
    urb: Any
    buffer: Any
    offset: int


class Done(NamedTuple):
    """A transfer that is over: the file that it came by hears of it when it asks next."""

    pending: Pending
    status: int
    data: bytes


class Link:
    """The connection to the server. Any thread submits; one thread reads and hands the events on."""

    def __init__(self, host: str, port: int, bus_id: str) -> None:
        self.place = host, port
        self.bus_id = bus_id
        self.lock = threading.Lock()
        self.resetting = False
        self.import_device()

    def import_device(self) -> None:
        """As soon as the server has finished with who had it before; nothing tells when that is."""
        deadline = time.monotonic() + IMPORT_SECONDS
        while not self.connect():
            assert time.monotonic() < deadline, "the server keeps the device"
            time.sleep(BUSY_SECONDS)

    def connect(self) -> bool:
        """Import the device; False while the server has not finished with who had it before."""
        self.socket = socket.create_connection(self.place)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.machine = UsbIpClient()
        self._send(self.machine.send(OpReqImport(self.bus_id)))
        imported = self._wait()
        assert isinstance(imported, OpRepImport)
        if imported.device is None:
            self.socket.close()
            return False
        self.devid = imported.device.devid
        return True

    def reset(self) -> None:
        """The server resets a device when its client goes away. The caller has the lock."""
        self.resetting = True
        self.socket.shutdown(socket.SHUT_RDWR)

    def configure(self, value: int) -> None:
        """As the kernel does it when a device is plugged in."""
        self.submit(0, 0, setup=set_configuration(value).encode())
        self._wait()

    def submit(self, endpoint: int, length: int, data: bytes = b"", setup: bytes = NO_SETUP) -> int:
        """Begin a transfer; its sequence number. The caller has the lock."""
        direction = Direction.IN if endpoint & DIRECTION_IN else Direction.OUT
        seqnum = self.machine.next_seqnum()
        command = CmdSubmit(seqnum, self.devid, direction, endpoint & ~DIRECTION_IN, 0, length, setup=setup)
        self._send(self.machine.send(command, (data,) if direction is Direction.OUT and length else ()))
        return seqnum

    def unlink(self, seqnum: int) -> None:
        """Take a transfer back. The caller has the lock."""
        self._send(self.machine.send(CmdUnlink(self.machine.next_seqnum(), self.devid, seqnum)))

    def descriptor(self, kind: DescriptorType, length: int, index: int = 0) -> bytes:
        """A descriptor of the device, before anybody else uses it."""
        language = LANGUAGE_ENGLISH_US if index else 0
        self.submit(DIRECTION_IN, length, setup=get_descriptor(kind, index, length, language=language).encode())
        answer = self._wait()
        assert isinstance(answer, UrbCompleted)
        assert not answer.status, answer
        return answer.data

    def string(self, index: int) -> str:
        """A string of the device, as the kernel shows it under /sys; empty if it has none."""
        if not index:
            return ""
        return decode_string(self.descriptor(DescriptorType.STRING, MAX_STRING_DESCRIPTOR, index))

    def pump(self, handle: Callable[[ClientEvent | NeedData], None]) -> None:
        """Read to the end."""
        while True:
            data = self.socket.recv(1 << 16)
            with self.lock:
                if not data and self.resetting:
                    self.import_device()
                    self.resetting = False
                    handle(NEED_DATA)
                    continue
                self.machine.receive_data(data)
                while (event := self.machine.next_event()) is not NEED_DATA:
                    handle(event)
                    if isinstance(event, Closed):
                        return

    def _wait(self) -> ClientEvent:
        while (event := self.machine.next_event()) is NEED_DATA:
            self.machine.receive_data(self.socket.recv(1 << 16))
        return event

    def _send(self, buffers: Sequence[Any]) -> None:
        self.socket.sendall(b"".join(buffers))


class Usbfs(UMockdev.IoctlBase):
    """What the kernel does with ioctls on a file of /dev/bus/usb."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.link = link
        self.pending: dict[int, Pending] = {}
        self.done: collections.defaultdict[Any, collections.deque[Done]] = collections.defaultdict(collections.deque)
        self.awaited: set[int] = set()
        self.news = threading.Condition(link.lock)
        self.gone = False

    def do_handle_ioctl(self, client: Any) -> bool:
        request, argument = client.get_request(), client.get_arg()
        with self.news:
            error = self.answer(client, request, argument)
        client.complete(-1 if error else 0, error)
        return True

    def answer(self, client: Any, request: int, argument: Any) -> int:
        """Do it; an errno, or 0."""
        if request in ACCEPTED:
            return errno.EBUSY if HELD and request == Ioctl.CLAIM else 0
        match request:
            case _ if self.gone and request not in (Ioctl.REAP, Ioctl.REAP_NOW):
                return errno.ENODEV
            case Ioctl.SUBMIT:
                self.submit(client, argument.resolve(0, URB_SIZE))
                return 0
            case Ioctl.REAP | Ioctl.REAP_NOW:
                return self.reap(self.done[client], argument)
            case Ioctl.DISCARD:
                return self.discard(argument.resolve(0, URB_SIZE).client_addr)
            case Ioctl.CAPABILITIES:
                argument.resolve(0, 4).update(0, list(ZERO_PACKET_AND_NO_SIZE_LIMIT.to_bytes(4, "little")))
                return 0
            case Ioctl.CLEAR_HALT:
                return self.clear_halt(argument.resolve(0, 4))
            case Ioctl.RESET:
                self.link.reset()
                self.news.wait_for(lambda: not self.link.resetting)
                return 0
            case Ioctl.GET_DRIVER:
                return errno.ENODATA
            case _:
                return errno.ENOTTY

    def submit(self, client: Any, urb: Any) -> None:
        raw = bytes(urb.retrieve())
        length = int.from_bytes(raw[URB_LENGTH : URB_LENGTH + 4], "little")
        buffer = urb.resolve(URB_BUFFER, length) if length else None
        content = bytes(buffer.retrieve()) if buffer is not None else b""
        endpoint, setup, offset = raw[URB_ENDPOINT], NO_SETUP, 0
        if raw[0] == CONTROL:
            setup, content, offset = content[:SETUP_SIZE], content[SETUP_SIZE:], SETUP_SIZE
            endpoint = setup[0] & DIRECTION_IN
            length -= SETUP_SIZE
        seqnum = self.link.submit(endpoint, length, content, setup)
        self.pending[seqnum] = Pending(client, urb, buffer, offset)

    def clear_halt(self, endpoint: Any) -> int:
        address = int.from_bytes(bytes(endpoint.retrieve()), "little")
        seqnum = self.link.submit(0, 0, setup=clear_endpoint_halt(address).encode())
        self.awaited.add(seqnum)
        self.news.wait_for(lambda: seqnum not in self.awaited or self.gone)
        return 0

    def discard(self, address: int) -> int:
        for seqnum, pending in self.pending.items():
            if pending.urb.client_addr == address:
                self.link.unlink(seqnum)
                return 0
        return errno.EINVAL

    def reap(self, done: "collections.deque[Done]", argument: Any) -> int:
        if not done and not self.gone:
            self.news.wait(NOTHING_TO_REAP_SECONDS)
        if not done:
            return errno.ENODEV if self.gone else errno.EAGAIN
        pending, status, data = done.popleft()
        if data:
            pending.buffer.update(pending.offset, list(data))
        pending.urb.update(URB_STATUS, list(status.to_bytes(4, "little", signed=True)))
        pending.urb.update(URB_ACTUAL, list(len(data).to_bytes(4, "little")))
        argument.resolve(0, 8).set_ptr(0, pending.urb)
        return 0

    def handle(self, event: ClientEvent | NeedData) -> None:
        """What the server said."""
        match event:
            case UrbCompleted(seqnum, _, _) if seqnum in self.awaited:
                self.awaited.remove(seqnum)
            case UrbCompleted(seqnum, status, data):
                self.end(seqnum, status, data)
            case UrbUnlinked(seqnum, _, True):
                self.end(seqnum, UNLINKED)
            case Closed():
                # poll cannot say that the device is gone, but the kernel ends what is under way as well.
                self.gone = True
                for seqnum in list(self.pending):
                    self.end(seqnum, -errno.ESHUTDOWN)
        self.news.notify_all()

    def end(self, seqnum: int, status: int, data: bytes = b"") -> None:
        """A transfer is over."""
        pending = self.pending.pop(seqnum)
        self.done[pending.client].append(Done(pending, status, data))


def describe(link: Link) -> str:
    """The device and its interfaces, as umockdev takes them."""
    device = link.descriptor(DescriptorType.DEVICE, DEVICE_DESCRIPTOR_SIZE)
    header = link.descriptor(DescriptorType.CONFIGURATION, CONFIGURATION_HEADER_SIZE)
    configuration = link.descriptor(DescriptorType.CONFIGURATION, configuration_total_length(header))
    head = DeviceDescriptor.decode(device)
    decoded = ConfigurationDescriptor.decode(configuration)
    link.configure(decoded.value)
    vendor, product = f"{head.vendor_id:04x}", f"{head.product_id:04x}"
    serial = link.string(head.serial_index)
    interfaces = "\n".join(describe_interface(interface, link.string) for interface in decoded.interfaces)
    return f"""P: {DEVICE}
N: {NODE}
E: SUBSYSTEM=usb
E: DEVTYPE=usb_device
E: DEVNAME=/dev/{NODE}
E: BUSNUM=001
E: DEVNUM=002
E: PRODUCT={head.vendor_id:x}/{head.product_id:x}/{head.device_version:x}
A: busnum=1\\n
A: devnum=2\\n
A: speed=12\\n
A: bConfigurationValue=1\\n
A: idVendor={vendor}\\n
A: idProduct={product}\\n
{attribute("serial", serial)}H: descriptors={(device + configuration).hex()}

{interfaces}"""


def describe_interface(interface: InterfaceDescriptor, string: Callable[[int], str]) -> str:
    """One interface."""
    return f"""P: {DEVICE}/1-1:1.{interface.number}
E: SUBSYSTEM=usb
E: DEVTYPE=usb_interface
E: INTERFACE={interface.interface_class}/{interface.interface_subclass}/{interface.interface_protocol}
A: bInterfaceNumber={interface.number:02x}\\n
A: bInterfaceClass={interface.interface_class:02x}\\n
{attribute("interface", string(interface.string_index))}
"""


def attribute(name: str, text: str) -> str:
    """A line of a description; none if there is no such string."""
    return f"A: {name}={text}\\n\n" if text else ""


def main() -> None:
    host, port, bus_id = sys.argv[2:]
    link = Link(host, int(port), bus_id)
    bed = UMockdev.Testbed.new()
    assert bed.add_from_string(describe(link))
    usbfs = Usbfs(link)
    bed.attach_ioctl(f"/dev/{NODE}", usbfs)
    threading.Thread(target=link.pump, args=(usbfs.handle,), daemon=True).start()
    sys.stdout.write(bed.get_root_dir() + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    bed.detach_ioctl(f"/dev/{NODE}")
    link.socket.close()
    del bed  # it removes its folder
    os._exit(0)  # the thread that reads is in the middle of it


if __name__ == "__main__":
    main()
