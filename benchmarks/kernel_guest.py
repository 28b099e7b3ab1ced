"""The same card through Linux' kernel: what a signature by OpenSC costs in a virtual machine, over several links.

In there run Debian's kernel, pcscd, libccid and OpenSC, as in the tests, whose machine this is; ``demail-hw attach``
brings them the reader. The machine is emulated and slow: what counts is the slope, which the links alone make.
"""

import contextlib
import fcntl
import importlib
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.null_card import NullCard
from benchmarks.report import table
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.proxy import Proxy

__all__ = ["Guest", "GuestSignature", "measure", "report"]

_ROOT = Path(__file__).parent.parent
_SUPPORT = _ROOT / "tests" / "support"
_CACHE = _ROOT / ".pytest_cache" / "d" / "kernel"
"""The tests' own: the packages are fetched once."""
_QEMU = "qemu-system-x86_64"
_HOST = "10.0.2.2"
_READER = "CLOUD 2700 F"
_FEW, _MANY = 2, 6
_SECONDS = 300
_MODULE, _SLOT, _PIN, _KEY = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so", "1", "222222", "47"
_DIGEST_INFO = "3031300d060960864801650304020105000420" + "00" * 32
_MILLISECONDS = 1000.0
_SIGN = """
import sys, time
import sign
module, slot, pin, key, data, times = sys.argv[1:]
session = sign.Session(module, int(slot), pin.encode())
found = session.key(bytes.fromhex(key))
for _ in range(int(times)):
    begun = time.monotonic()
    session.sign(found, bytes.fromhex(data))
    print(time.monotonic() - begun)
session.call("C_Finalize", None)
"""


class GuestSignature(NamedTuple):
    """A signature more in an open PKCS#11 session: seconds of the link's round trip, and of the median signature."""

    link: float
    seconds: float


class Guest(NamedTuple):
    """``round_trips``: of one signature more. ``why``: nothing was measured."""

    signatures: Sequence[GuestSignature] = ()
    round_trips: float = 0.0
    why: str = ""


def measure(links: Sequence[float]) -> Guest:
    """A signature over each link; without qemu, or the packages of the machine, none."""
    program = shutil.which(_QEMU)
    if program is None:
        return Guest(why=f"{_QEMU} is not here")
    sys.path.insert(0, str(_SUPPORT))
    try:
        image = importlib.import_module("qemu_image")
        with contextlib.ExitStack() as stack:
            try:
                machine = stack.enter_context(_machine(program, image))
            except image.PackagesMissing as error:
                return Guest(why=f"the packages of the machine cannot be had: {error}")
            return _measure(machine, links)
    finally:
        sys.path.remove(str(_SUPPORT))


@contextlib.contextmanager
def _machine(program: str, image: Any) -> Iterator[Any]:
    """The tests' virtual machine, with pcscd."""
    qemu, project = importlib.import_module("qemu"), importlib.import_module("qemu_project")
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = image.build(_CACHE)
    with tempfile.TemporaryDirectory(prefix="demail-hw-bench-") as folder, contextlib.ExitStack() as stack:

        def boot(accelerator: str) -> Any:
            place = Path(folder, accelerator)
            place.mkdir()
            files = project.project_files()
            return stack.enter_context(
                qemu.VirtualMachine(program, built, files, accelerator=accelerator, folder=place)
            )

        machine = _first_that_boots(boot, qemu.accelerators())
        machine.start("pcscd", "pcscd", "--foreground")
        yield machine


def _first_that_boots(boot: Callable[[str], Any], accelerators: Sequence[str]) -> Any:
    *others, last = accelerators
    for accelerator in others:
        with contextlib.suppress(TimeoutError):
            return boot(accelerator)
    return boot(last)


def _measure(machine: Any, links: Sequence[float]) -> Guest:
    reader = SimulatedUsbReader(NullCard(netkey3()))
    with UsbIpServer([reader], port=0) as server, _attached(machine, server.port) as proxy:
        few, _ = _signed(machine, proxy, _FEW)
        many, _ = _signed(machine, proxy, _MANY)
        return Guest([_over(machine, proxy, link) for link in links], (many - few) / (_MANY - _FEW))


@contextlib.contextmanager
def _attached(machine: Any, port: int) -> Iterator[Proxy]:
    """Over a link without a way: libccid gives a reader that is new 100 ms to say anything."""
    with Proxy(("127.0.0.1", port)) as proxy:
        machine.start("attach", "python3", "/project/attach.py", f"usbip://{_HOST}:{proxy.address[1]}/")
        machine.until(_READER, "opensc-tool", "--list-readers", seconds=_SECONDS)
        yield proxy
        machine.wait("attach", number=signal.SIGTERM)


def _over(machine: Any, proxy: Proxy, link: float) -> GuestSignature:
    proxy.lengthen(link / 2)
    _, (_, *seconds) = _signed(machine, proxy, _MANY)
    return GuestSignature(link, statistics.median(seconds))


def _signed(machine: Any, proxy: Proxy, times: int) -> tuple[int, Sequence[float]]:
    """How many round trips a session with so many signatures took, and the seconds of each of these."""
    before = proxy.turns
    words = (_MODULE, _SLOT, _PIN, _KEY, _DIGEST_INFO, str(times))
    said = machine.good("python3", "-c", _SIGN, *words, seconds=_SECONDS)
    return proxy.turns - before, [float(line) for line in said.splitlines()]


def report(guest: Guest) -> str:
    """Times in milliseconds."""
    if guest.why:
        return f"THROUGH THE KERNEL: left out, {guest.why}"
    rows = [(f"{row.link * _MILLISECONDS:g}", f"{row.seconds * _MILLISECONDS:.1f}") for row in guest.signatures]
    title = "A signature more by OpenSC, through the kernel of a virtual machine (ms)"
    return "\n".join(
        [
            table(title, ("round trip", "p50"), rows),
            f"slope: {_slope(guest.signatures):.3f} round trips a signature; {guest.round_trips:g} counted",
        ]
    )


def _slope(signatures: Sequence[GuestSignature]) -> float:
    return statistics.linear_regression(*zip(*signatures, strict=True)).slope
