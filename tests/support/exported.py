"""What a USB/IP server exports, seen from inside."""

import time

from demail_hw_drivers.usbip_server import UsbIpServer

__all__ = ["wait_until_free"]


def wait_until_free(server: UsbIpServer, bus_id: str, *, deadline: float) -> bool:
    """Wait until nobody has the device: its last client's session is over, and it was reset. False if the time was
    over before."""
    export = server._service.exports[bus_id]
    with export._changed:
        return export._changed.wait_for(lambda: not export.busy, max(0.0, deadline - time.monotonic()))
