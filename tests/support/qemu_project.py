"""What of this project a virtual machine has: the sources, what attaches a reader there, and what signs there.

The front door of the package stays outside: behind it are the keys, which need cryptography, and carrying USB/IP
needs the standard library alone.
"""

import pathlib

import demail_hw
import demail_hw_drivers
import qemu_attach
import qemu_image
import qemu_sign
from qemu_image import Node

__all__ = ["project_files"]


def project_files() -> dict[str, Node]:
    return {
        **qemu_image.source_tree(folder(demail_hw), "project/demail_hw", leave_out=["__init__.py"]),
        **qemu_image.source_tree(folder(demail_hw_drivers), "project/demail_hw_drivers"),
        "project/attach.py": qemu_image.file(pathlib.Path(qemu_attach.__file__).read_bytes()),
        "project/sign.py": qemu_image.file(pathlib.Path(qemu_sign.__file__).read_bytes()),
    }


def folder(package: object) -> pathlib.Path:
    (place,) = package.__path__  # type: ignore[attr-defined]
    return pathlib.Path(place)
