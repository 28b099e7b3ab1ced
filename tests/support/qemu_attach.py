"""`demail-hw attach` for a virtual machine that has no click: all of it but the reading of its options. The standard
library alone is enough for it.

python3 qemu_attach.py URI
"""

import json
import sys
from collections.abc import Mapping

from demail_hw.address import Address
from demail_hw.cli.attaching import Target, keep_attached
from demail_hw.errors import HardwareError

FOREIGN = ("asn1crypto", "click", "cryptography")


def show(facts: Mapping[str, str], _: str) -> None:
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


def main() -> None:
    address = Address.parse(sys.argv[1])
    try:
        keep_attached(address, Target(address), show)
    except HardwareError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
    assert not set(FOREIGN) & set(sys.modules)
