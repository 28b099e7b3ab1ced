"""What a system has to be told so that services can use readers: rules and units, as files in this package.

A file is shown or copied as it is, with the path of the program in it. Nothing here starts, reloads or enables
anything: which command does that stands in :attr:`SystemPiece.then`.
"""

import dataclasses
import importlib.resources
from pathlib import PurePosixPath
from typing import Final

__all__ = ["PIECES", "PROGRAM", "SystemPiece", "piece"]

PROGRAM: Final = "/usr/bin/demail-hw"
"""How the units name the program, before it is replaced."""

_FOLDER: Final = "system"
_RELOAD_UDEV: Final = "udevadm control --reload && udevadm trigger --subsystem-match=usb"
_RELOAD_SYSTEMD: Final = "systemctl daemon-reload"


@dataclasses.dataclass(frozen=True, slots=True)
class SystemPiece:
    """A file for the system. ``source``: its name in this package. ``target``: where it belongs. ``then``: the
    command that gives it effect. ``needs``: names of pieces that it makes no sense without."""

    name: str
    source: str
    target: PurePosixPath
    what: str
    then: str
    needs: tuple[str, ...] = ()

    def text(self, program: str = PROGRAM) -> str:
        """The file, with this path of the program."""
        folder = importlib.resources.files(__package__) / _FOLDER
        return (folder / self.source).read_text(encoding="utf-8").replace(PROGRAM, program)


PIECES: Final = (
    SystemPiece(
        "attach",
        "demail-hw-attach@.service",
        PurePosixPath("/etc/systemd/system/demail-hw-attach@.service"),
        "unit: keeps a reader of a USB server attached to this kernel, one instance a binding",
        f"{_RELOAD_SYSTEMD} && systemctl enable --now demail-hw-attach@BINDING",
        ("vhci",),
    ),
    SystemPiece(
        "gateway",
        "demail-hw-gateway.service",
        PurePosixPath("/etc/systemd/system/demail-hw-gateway.service"),
        "sample unit: a connector that gets the PIN as a credential",
        f"{_RELOAD_SYSTEMD} && systemctl edit demail-hw-gateway",
        ("user",),
    ),
    SystemPiece(
        "pcscd-ignore",
        "71-demail-hw-pcscd-ignore.rules",
        PurePosixPath("/etc/udev/rules.d/71-demail-hw-pcscd-ignore.rules"),
        "udev rule: pcscd 2.3.2 and newer leaves readers alone, for libusb: and serve",
        f"{_RELOAD_UDEV} && systemctl restart pcscd",
    ),
    SystemPiece(
        "pcscd-stay",
        "pcscd-stay.conf",
        PurePosixPath("/etc/systemd/system/pcscd.service.d/demail-hw.conf"),
        "drop-in: pcscd stays when nobody uses it",
        f"{_RELOAD_SYSTEMD} && systemctl restart pcscd",
    ),
    SystemPiece(
        "polkit",
        "50-demail-hw-pcscd.rules",
        PurePosixPath("/etc/polkit-1/rules.d/50-demail-hw-pcscd.rules"),
        "polkit rule: pcscd and its cards for the group demail-hw",
        "systemctl restart polkit",
        ("user",),
    ),
    SystemPiece(
        "readers",
        "70-demail-hw-readers.rules",
        PurePosixPath("/etc/udev/rules.d/70-demail-hw-readers.rules"),
        "udev rule: readers on USB for the group demail-hw",
        _RELOAD_UDEV,
        ("user",),
    ),
    SystemPiece(
        "serve",
        "demail-hw-serve.service",
        PurePosixPath("/etc/systemd/system/demail-hw-serve.service"),
        "unit: exports readers of this machine",
        f"{_RELOAD_SYSTEMD} && systemctl enable --now demail-hw-serve",
        ("readers", "user"),
    ),
    SystemPiece(
        "user",
        "demail-hw.sysusers.conf",
        PurePosixPath("/etc/sysusers.d/demail-hw.conf"),
        "user and group demail-hw for the services",
        "systemd-sysusers",
    ),
    SystemPiece(
        "vhci",
        "demail-hw.modules-load.conf",
        PurePosixPath("/etc/modules-load.d/demail-hw.conf"),
        "the kernel module of attach, loaded at boot",
        "systemctl restart systemd-modules-load",
    ),
)
"""All of them, by name."""

_BY_NAME: Final = {each.name: each for each in PIECES}


def piece(name: str) -> SystemPiece:
    """The piece of this name. ``KeyError`` if there is none."""
    return _BY_NAME[name]
