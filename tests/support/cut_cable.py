"""A USB/IP client whose cable is cut, in its own network: ``unshare --net python3 cut_cable.py FOLDER [hurried]``.

Standard output gets what the server did, a line each. With certificates in FOLDER (``server``, ``holder``,
``stranger``, ``authority``) it speaks TLS and tries who can take over; without, it waits until the device is free: 11
seconds, or 2 if it is ``hurried``.
"""

import queue
import socket
import subprocess
import sys
import time
from pathlib import Path

from demail_hw.address import Address
from demail_hw.errors import DeviceBusy
from demail_hw.usbip.client import UsbIpClient
from demail_hw.usbip.events import NEED_DATA
from demail_hw.usbip.messages import OpReqImport
from demail_hw_drivers import tcp
from demail_hw_drivers.tcp import Wire, tune
from demail_hw_drivers.tls_stream import TlsEngine, TlsFiles, TlsWire, client_context, server_context
from demail_hw_drivers.usbip_client import connect
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_drivers.usbip_server_audit import AuditLine
from demail_hw_simulators.ccid_device import SimulatedUsbReader

SERVER, HOLDER = "10.9.0.1", "10.9.0.2"
SECONDS = 30.0
HURRIED = {socket.TCP_KEEPIDLE: 1, socket.TCP_USER_TIMEOUT: 500}
"""A second is the shortest that the kernel has; the first probe that is not answered ends the connection."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def files(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(str(folder / f"{name}.pem"), str(folder / f"{name}.key"), str(folder / "authority.pem"))


def hold(port: int, own: TlsFiles | None) -> Wire:
    """Import the device from an address that can be taken away."""
    sock = socket.create_connection((SERVER, port), SECONDS, (HOLDER, 0))
    tune(sock)
    deadline = time.monotonic() + SECONDS
    wire = Wire(sock)
    if own is not None:
        wire = TlsWire(sock, TlsEngine(client_context(own), host=SERVER))
        assert wire.shake(deadline=deadline)
    machine = UsbIpClient()
    assert wire.send(machine.send(OpReqImport("1-1")), deadline=deadline)
    while machine.next_event() is NEED_DATA:
        machine.receive_data(wire.receive(deadline=deadline) or b"")
    return wire


def attempt(port: int, own: TlsFiles) -> str:
    address = Address("usbips", SERVER, port, "1-1", cert=own.certificate, key=own.key, ca=own.ca)
    try:
        connect(address, deadline=time.monotonic() + SECONDS).close()
    except DeviceBusy:
        return "busy"
    return "granted"


def hurry() -> None:
    tcp._OPTIONS = tuple((level, option, HURRIED.get(option, value)) for level, option, value in tcp._OPTIONS)


def main(folder: Path) -> None:
    ip("link", "set", "lo", "up")
    for address in (SERVER, HOLDER):
        ip("address", "add", f"{address}/32", "dev", "lo")
    secured = (folder / "authority.pem").exists()
    context = server_context(files(folder, "server")) if secured else None
    lines: queue.SimpleQueue[AuditLine] = queue.SimpleQueue()
    reader = SimulatedUsbReader(None)
    with UsbIpServer([reader], host=SERVER, port=0, context=context, audit=lines.put) as server:
        wire = hold(server.port, files(folder, "holder") if secured else None)
        if secured:
            say(f"living: {attempt(server.port, files(folder, 'holder'))}")
        ip("address", "del", f"{HOLDER}/32", "dev", "lo")
        if secured:
            say(f"stranger: {attempt(server.port, files(folder, 'stranger'))}")
            say(f"successor: {attempt(server.port, files(folder, 'holder'))}")
        while (line := lines.get(timeout=SECONDS)).action.value != "release":
            pass
        say(f"released: {line.result}")
        wire.close()


if __name__ == "__main__":
    if "hurried" in sys.argv:
        hurry()
    main(Path(sys.argv[1]))
