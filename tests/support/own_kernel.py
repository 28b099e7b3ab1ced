"""In the place of the kernel's USB/IP client: our own."""

import pathlib
import queue
import socket
import time
from typing import Final

from demail_hw.usbip.client import UsbIpClient
from demail_hw.usbip.messages import OpRepImport, OpReqImport, UsbDevice
from demail_hw_drivers.tcp import Wire
from demail_hw_drivers.usbip_transport import UsbIpTransport
from demail_hw_drivers.vhci import Vhci

__all__ = ["OwnKernel"]

SECONDS: Final = 20.0


class OwnKernel(Vhci):
    """Takes the socket of a device as vhci_hcd does, and speaks USB/IP on it by our own client."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(sysfs=folder, port_files=folder / "ports")
        self.devices: queue.SimpleQueue[tuple[socket.socket, UsbDevice]] = queue.SimpleQueue()

    def check(self) -> None:
        """It is there."""

    def attach(self, sock: socket.socket, device: UsbDevice) -> int:
        self.devices.put((sock.dup(), device))
        return 4

    def transport(self) -> UsbIpTransport:
        """The device that was attached next."""
        sock, device = self.devices.get(timeout=SECONDS)
        machine = UsbIpClient()
        machine.send(OpReqImport(device.bus_id))
        machine.receive_data(OpRepImport(device).encode())
        machine.next_event()
        transport = UsbIpTransport(Wire(sock), machine, device)
        transport.configure(deadline=time.monotonic() + SECONDS)
        return transport
