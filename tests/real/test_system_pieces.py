"""The rules and units, judged by the programs that read them: systemd, udev, and polkit's engine for rules."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from demail_hw_drivers.system_pieces import PIECES, piece

SECONDS = 60
UNITS = [each.name for each in PIECES if each.source.endswith(".service")]
EXPOSURE = 25
"""Tenths of what systemd calls the exposure level; an unhardened unit has 96."""
GROUP = 4242
SYSFS = "/devices/pci0000:00/0000:00:14.0/usb1/1-1"
DEVICE = f"""P: {SYSFS}
N: bus/usb/001/002
E: DEVTYPE=usb_device
E: SUBSYSTEM=usb
E: DEVNAME=/dev/bus/usb/001/002
A: idVendor=04e6\\n
A: idProduct=5710\\n
A: bDeviceClass=00\\n
H: descriptors={{descriptors}}
"""
DEVICE_DESCRIPTOR = "12011001000000 40 e604 1057 0003 010203 01"
CONFIGURATION = "0902 1900 01 01 00 80 32"
INTERFACE = "0904 00 00 01 {interface_class} 00 00 00"
ENDPOINT = "0705 01 02 4000 00"
# udev keeps what it finds in /run, and reads rules from there too.
UDEV = """
mount --make-rprivate / && mount --bind "$1" /mnt && mount -t tmpfs tmpfs /run && mkdir -p /run/udev/rules.d &&
cp /mnt/*.rules /run/udev/rules.d && cp /etc/group /run/group && echo "demail-hw:x:$2:" >> /run/group &&
mount --bind /run/group /etc/group &&
exec umockdev-run --device /mnt/device.umockdev -- "$3" test --action=add "$4"
"""
# polkitd gives its rules this object, and asks them in their order.
POLKIT = """
var rules = [];
var polkit = { Result: { YES: "yes", NO: "no", NOT_HANDLED: null }, addRule: function (rule) { rules.push(rule); } };
function asked(id, groups) {
    var subject = { isInGroup: function (group) { return groups.indexOf(group) >= 0; } };
    var said = rules.map(function (rule) { return rule({ id: id }, subject); });
    return said.filter(function (each) { return each !== null; });
}
"""
CARD = "org.debian.pcsc-lite.access_card"
SERVICE = "org.debian.pcsc-lite.access_pcsc"


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, **options)  # type: ignore[call-overload,no-any-return]


def installed(name: str, folder: pathlib.Path) -> str:
    """The piece in a file of its own name, with a program that is there."""
    path = folder / piece(name).target.name
    path.write_text(piece(name).text(str(pathlib.Path(sys.executable).with_name("demail-hw"))))
    return str(path)


# --- systemd


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong(name: str, tool: Callable[[str], str], tmp_path: pathlib.Path) -> None:
    done = run(tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", installed(name, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_systemd_calls_it_well_hardened(name: str, tool: Callable[[str], str], tmp_path: pathlib.Path) -> None:
    words = ("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", "--json=short")
    done = run(tool("systemd-analyze"), *words, installed(name, tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)


def test_the_drop_in_fits_the_unit(tool: Callable[[str], str], tmp_path: pathlib.Path) -> None:
    tool("pcscd")
    unit = pathlib.Path("/lib/systemd/system/pcscd.service")
    (tmp_path / "pcscd.service").write_bytes(unit.read_bytes())
    folder = tmp_path / "pcscd.service.d"
    folder.mkdir()
    installed("pcscd-stay", folder)
    done = run(
        tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "pcscd.service")
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_would_make_the_user(tool: Callable[[str], str], tmp_path: pathlib.Path) -> None:
    tool("systemd-analyze")
    done = run("systemd-sysusers", "--dry-run", f"--root={tmp_path}", installed("user", tmp_path))
    assert done.returncode == 0
    assert "Creating user 'demail-hw'" in done.stderr


# --- udev


def udev_says(
    tool: Callable[[str], str], folder: pathlib.Path, *names: str, interface_class: str
) -> subprocess.CompletedProcess[str]:
    """What udev makes of a device of this class, with these rules beside the system's."""
    for name in names:
        installed(name, folder)
    hexadecimal = DEVICE_DESCRIPTOR + CONFIGURATION + INTERFACE.format(interface_class=interface_class) + ENDPOINT
    descriptors = hexadecimal.replace(" ", "").upper()
    (folder / "device.umockdev").write_text(DEVICE.format(descriptors=descriptors))
    for program in ("umockdev-run", "unshare"):
        tool(program)
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    script = ("sh", "-ec", UDEV, "sh", str(folder), str(GROUP), tool("udevadm"), SYSFS)
    return run("unshare", *user, "--mount", *script)


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What udev says of our rules: each line of it names the file."""
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith("/run/udev/rules.d/")]


def test_udev_gives_readers_to_the_group(tool: Callable[[str], str], tmp_path: pathlib.Path) -> None:
    done = udev_says(tool, tmp_path, "readers", interface_class="0b")
    assert complaints(done) == []
    said = done.stdout + done.stderr
    assert f"GROUP {GROUP}" in said
    assert "MODE 0660" in said
    assert ":uaccess:" in said
    assert "PCSCLITE_IGNORE" not in said


def test_udev_tells_pcscd_to_leave_readers_alone(tool: Callable[[str], str], tmp_path: pathlib.Path) -> None:
    done = udev_says(tool, tmp_path, "readers", "pcscd-ignore", interface_class="0b")
    assert complaints(done) == []
    assert "PCSCLITE_IGNORE=1" in done.stdout.splitlines()


def test_udev_leaves_other_devices_as_they_are(tool: Callable[[str], str], tmp_path: pathlib.Path) -> None:
    done = udev_says(tool, tmp_path, "readers", "pcscd-ignore", interface_class="08")
    assert "ID_USB_INTERFACES=:080000:" in done.stdout.splitlines()
    said = done.stdout + done.stderr
    assert f"GROUP {GROUP}" not in said
    assert "PCSCLITE_IGNORE" not in said


def test_udev_would_complain(tool: Callable[[str], str], tmp_path: pathlib.Path) -> None:
    """Else the tests above could not fail."""
    (tmp_path / "72-broken.rules").write_text('NO_SUCH_KEY=="x"\n')
    assert complaints(udev_says(tool, tmp_path, interface_class="0b"))


# --- polkit


@pytest.mark.parametrize(
    ("action", "groups", "said"),
    [
        (CARD, ["demail-hw"], ["yes"]),
        (SERVICE, ["users", "demail-hw"], ["yes"]),
        (CARD, ["users"], []),
        (SERVICE, [], []),
        ("org.freedesktop.login1.reboot", ["demail-hw"], []),
    ],
)
def test_polkit_lets_the_group_in_and_nobody_else(
    action: str, groups: list[str], said: list[str], tool: Callable[[str], str], tmp_path: pathlib.Path
) -> None:
    question = f"print(JSON.stringify(asked({json.dumps(action)}, {json.dumps(groups)})));\n"
    script = tmp_path / "ask.js"
    script.write_text(POLKIT + piece("polkit").text() + question)
    done = run(tool("duk"), str(script))
    assert (done.returncode, json.loads(done.stdout)) == (0, said), done.stderr
