"""What is timed: signatures at each depth of the stack, and the parts they are compared with."""

import enum

__all__ = ["Depth", "Part"]


class Depth(enum.Enum):
    """What lies between the key and its card."""

    IN_PROCESS = "in process"
    """Nothing: a function call."""
    CCID = "CCID"
    """A CCID reader on a USB cable of no length, in one process."""
    USB_IP = "USB/IP"
    """CCID over USB/IP over TCP on the loopback interface; reader and card are in another process."""


class Part(enum.Enum):
    """What no signature over a network can be without."""

    VERIFICATION = "verification"
    """One verification with the public key."""
    FLOOR = "floor"
    """An echo of the same bytes, and one verification."""
