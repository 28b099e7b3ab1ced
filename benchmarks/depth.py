"""How far down the stack a benchmark goes."""

import enum

__all__ = ["Depth"]


class Depth(enum.Enum):
    """What lies between the key and its card."""

    IN_PROCESS = "in process"
    """Nothing: a function call."""
    CCID = "CCID"
    """A CCID reader on a USB cable of no length, in one process."""
    USB_IP = "USB/IP"
    """CCID over USB/IP over TCP on the loopback interface; reader and card are in another process."""
