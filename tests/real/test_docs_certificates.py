"""The recipe for certificates in docs/configuration.md, run as it stands but for the server's number."""

import pathlib
import re
import shlex
import subprocess
import time
from collections.abc import Callable

from demail_hw.address import Address
from demail_hw.usbip.access import AccessRule
from demail_hw_drivers.tls_stream import TlsFiles, server_context
from demail_hw_drivers.usbip_client import list_devices
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from documents import DOCUMENTS

SECONDS = 60
LINE = re.compile(r"^\$ openssl (.*)$", re.MULTILINE)
(CONFIGURATION,) = (path for path in DOCUMENTS if path.name == "configuration.md")


def test_the_two_sides_take_each_other(tool: Callable[[str], str], tmp_path: pathlib.Path) -> None:
    program = tool("openssl")
    for line in LINE.findall(CONFIGURATION.read_text(encoding="utf-8")):
        words = shlex.split(line.replace("192.0.2.10", "127.0.0.1"))
        done = subprocess.run(
            [program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
    own, theirs = (
        TlsFiles(*(str(tmp_path / f"{who}.{kind}") for kind in ("pem", "key"))) for who in ("server", "client")
    )
    authority = str(tmp_path / "ca.pem")
    allowed = {"1-1": [AccessRule.parse("san:gateway.example")]}
    context = server_context(own._replace(ca=authority))
    with UsbIpServer([SimulatedUsbReader(None)], port=0, context=context, allowed=allowed) as server:
        address = Address("usbips", "127.0.0.1", server.port, cert=theirs.certificate, key=theirs.key, ca=authority)
        assert [entry.device.bus_id for entry in list_devices(address, deadline=time.monotonic() + SECONDS)] == [
            "1-1"
        ]
