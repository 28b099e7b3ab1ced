"""On which ports a W&T USB-Server listens (manual of the USB-Server 53641, technical data)."""

import dataclasses
from typing import Final

__all__ = ["FACTORY_PORTS", "Ports"]


@dataclasses.dataclass(frozen=True, slots=True)
class Ports:
    """``inventory``: UDP, asked for who is there. The others are TCP. ``web``: the Web Based Management. ``usb``: the
    UsbServerPort, which the device's own driver speaks to. ``control``: who connects there resets the device."""

    inventory: int = 8513
    web: int = 80
    usb: int = 32032
    control: int = 8888


FACTORY_PORTS: Final = Ports()
"""As the device is delivered."""
