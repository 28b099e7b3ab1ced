"""What `demail-hw attach` does, for a virtual machine that has no click: with the standard library alone.

python3 qemu_attach.py URI
"""

import signal
import sys

from demail_hw.address import Address
from demail_hw.errors import HardwareError
from demail_hw.usbip.binding import BindingEvent
from demail_hw_drivers.vhci_attach import VhciAttachment

FOREIGN = ("asn1crypto", "click", "cryptography")


def tell(event: BindingEvent) -> None:
    sys.stdout.write(f"{event.state.value} {event.reason}\n")
    sys.stdout.flush()


def main() -> None:
    with VhciAttachment(Address.parse(sys.argv[1]), tell=tell) as attachment:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: attachment.stop())
        try:
            sys.stdout.write(f"end {attachment.run().value}\n")
        except HardwareError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    assert not set(FOREIGN) & set(sys.modules)
    main()
