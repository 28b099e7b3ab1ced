"""The kernel's virtual USB ports, by the files that sysfs shows of them."""

import errno
import os
import pathlib
import socket
from collections.abc import Iterator

import pytest

from demail_hw.errors import ConfigurationError, DeviceBusy, DeviceNotFound, HardwareError, Outcome, TransportError
from demail_hw.usbip.messages import UsbDevice, UsbSpeed
from demail_hw_drivers.vhci import Origin, PortState, Vhci, VhciPort, parse_ports

HEADER = "hub port sta spd dev      sockfd local_busid\n"
# Of Debian's 6.1.0-56-amd64, with one device attached; two of its thirty ports of each controller.
STATUS = HEADER + (
    "hs  0000 006 002 00010002 000007 1-1\n"
    "hs  0001 004 000 00000000 000000 0-0\n"
    "ss  0015 004 000 00000000 000000 0-0\n"
)
STATUS_1 = HEADER + "hs  0030 004 000 00000000 000000 0-0\nss  0045 004 000 00000000 000000 0-0\n"


def device(speed: int) -> UsbDevice:
    return UsbDevice("/sys/1-1", "1-1", 1, 2, speed, 0x04E6, 0x5710, 0x0003, 0, 0, 0, 1, 1, 1)


DEVICE = device(UsbSpeed.FULL)


@pytest.fixture
def sysfs(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "vhci_hcd.0"
    folder.mkdir()
    for name, text in {"status": STATUS, "status.1": STATUS_1, "attach": "", "detach": ""}.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def vhci(sysfs: pathlib.Path, tmp_path: pathlib.Path) -> Vhci:
    return Vhci(sysfs=sysfs, port_files=tmp_path / "ports")


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs


def test_a_status_file_of_a_real_kernel() -> None:
    assert parse_ports(STATUS) == [
        VhciPort("hs", 0, PortState.USED, 2, 0x10002, "1-1"),
        VhciPort("hs", 1, PortState.FREE, 0, 0, "0-0"),
        VhciPort("ss", 15, PortState.FREE, 0, 0, "0-0"),
    ]


def test_another_form_of_status_is_not_guesseddevice() -> None:
    with pytest.raises(ValueError, match="fields"):
        parse_ports("hub port\nhs 0000\n")


def test_all_controllers_are_lookeddevice(vhci: Vhci) -> None:
    assert [port.number for port in vhci.ports()] == [0, 1, 15, 30, 45]


def test_a_device_gets_the_first_free_port_of_its_hub(vhci: Vhci, sysfs: pathlib.Path, sock: socket.socket) -> None:
    assert vhci.attach(sock, DEVICE) == 1
    assert (sysfs / "attach").read_text() == f"1 {sock.fileno()} 65538 2"


@pytest.mark.parametrize("speed", [UsbSpeed.SUPER, UsbSpeed.SUPER_PLUS])
def test_a_fast_device(vhci: Vhci, sysfs: pathlib.Path, sock: socket.socket, speed: UsbSpeed) -> None:
    assert vhci.attach(sock, device(speed)) == 15
    assert (sysfs / "attach").read_text().endswith(" 5")


class Busy(Vhci):
    """Somebody else takes a port between the look and the attempt."""

    taken = 1

    def _write_attach(self, line: str) -> None:
        if self.taken:
            self.taken -= 1
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        super()._write_attach(line)


def test_a_port_that_somebody_else_takes_meanwhile(sysfs: pathlib.Path, sock: socket.socket) -> None:
    assert Busy(sysfs=sysfs).attach(sock, DEVICE) == 30


def test_no_port_is_free(vhci: Vhci, sysfs: pathlib.Path, sock: socket.socket) -> None:
    for name in ("status", "status.1"):
        (sysfs / name).write_text((sysfs / name).read_text().replace(" 004 ", " 006 "))

    with pytest.raises(DeviceBusy, match="in use") as raised:
        vhci.attach(sock, DEVICE)

    assert raised.value.outcome is Outcome.NOT_SENT
    assert "usbip port" in raised.value.remedy


class Refusing(Vhci):
    def _write_attach(self, line: str) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def test_a_device_that_the_kernel_refuses(sysfs: pathlib.Path, sock: socket.socket) -> None:
    with pytest.raises(TransportError, match="port 1: Invalid argument") as raised:
        Refusing(sysfs=sysfs).attach(sock, device(99))

    assert not raised.value.transient
    assert "dmesg" in raised.value.remedy


def test_a_kernel_without_the_module(tmp_path: pathlib.Path, sock: socket.socket) -> None:
    absent = Vhci(sysfs=tmp_path / "nothing")

    for call in (absent.check, absent.ports, lambda: absent.attach(sock, DEVICE), lambda: absent.detach(0)):
        with pytest.raises(ConfigurationError) as raised:
            call()
        assert "modprobe vhci-hcd" in raised.value.remedy


class Denied(Vhci):
    why = errno.EACCES

    def _write_attach(self, line: str) -> None:
        raise OSError(self.why, os.strerror(self.why))


@pytest.mark.parametrize("why", [errno.EACCES, errno.EPERM, errno.EROFS], ids=errno.errorcode.get)
def test_a_user_who_may_not(sysfs: pathlib.Path, sock: socket.socket, why: int) -> None:
    denied = Denied(sysfs=sysfs)
    denied.why = why
    with pytest.raises(ConfigurationError, match="may not attach") as raised:
        denied.attach(sock, DEVICE)

    assert "as root" in raised.value.remedy


def test_the_port_file_that_the_usbip_tool_reads(vhci: Vhci, tmp_path: pathlib.Path) -> None:
    origin = Origin("usb-server", 3240, "1-1")
    vhci.remember(7, origin)

    assert (tmp_path / "ports" / "port7").read_text() == "usb-server 3240 1-1\n"
    assert (tmp_path / "ports").stat().st_mode & 0o777 == 0o700
    assert vhci.origin(7) == origin
    vhci.forget(7, origin)
    vhci.forget(7, origin)
    assert vhci.origin(7) is None


def test_a_port_file_says_by_which_address_in_a_line_that_the_tool_does_not_read(vhci: Vhci) -> None:
    origin = Origin("usb-server", 3240, "1-1", "usbip://usb-server:3240/serial=5")
    vhci.remember(7, origin)

    assert origin.encode().startswith("usb-server 3240 1-1\n")
    assert vhci.origin(7) == origin


def test_the_port_file_of_whoever_took_the_port_meanwhile_stays(vhci: Vhci) -> None:
    ours, theirs = Origin("usb-server", 3240, "1-1"), Origin("another", 3240, "1-1")
    vhci.remember(7, theirs)
    vhci.forget(7, ours)

    assert vhci.origin(7) == theirs


def test_a_port_file_of_somebody_else(vhci: Vhci, tmp_path: pathlib.Path) -> None:
    (tmp_path / "ports").mkdir()
    (tmp_path / "ports" / "port3").write_text("nonsense")

    assert vhci.origin(3) is None


def test_a_port_file_that_cannot_be_written_is_told_of_and_no_more(
    sysfs: pathlib.Path, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()

    Vhci(sysfs=sysfs, port_files=tmp_path / "file" / "ports").remember(7, Origin("usb-server", 3240, "1-1"))

    assert "usbip port" in caplog.text


def test_detach(vhci: Vhci, sysfs: pathlib.Path) -> None:
    vhci.remember(0, Origin("usb-server", 3240, "1-1"))

    vhci.detach(0)

    assert (sysfs / "detach").read_text() == "0"
    assert vhci.origin(0) is None


def test_a_port_without_a_device_is_not_detached(vhci: Vhci, sysfs: pathlib.Path) -> None:
    with pytest.raises(DeviceNotFound, match="ports in use: 0") as raised:
        vhci.detach(1)

    error: HardwareError = raised.value
    assert error.outcome is Outcome.NOT_SENT
    assert (sysfs / "detach").read_text() == ""
