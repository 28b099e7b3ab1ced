"""Linux' own USB/IP client, in a virtual machine of Debian's packages as they are: what `demail-hw attach` gives it.

In there run Debian's kernel, udev, pcscd, libccid and OpenSC. The server, the simulated reader and the card are out
here. Of ours the machine has what needs the standard library alone: all of `attach` but the reading of its options.
The machine starts once for all tests of this file.
"""

import base64
import collections
import contextlib
import fcntl
import hashlib
import json
import pathlib
import re
import signal
from collections.abc import Callable, Iterator, Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import qemu_image
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw_drivers.tls_stream import TlsFiles, server_context
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from lying_server import LIES, Lie, LyingServer, as_keyboard
from qemu import SECONDS, VirtualMachine, accelerators
from qemu_image import Node
from qemu_project import project_files
from tls_files import TlsAuthority

# The first test waits for the packages, once, and for the machine, which an old computer emulates slowly.
pytestmark = pytest.mark.timeout(900)

HOST = "10.0.2.2"
READER = "Identive CLOUD 2700 F Smart Card Reader"
NO_READER = "No smart card readers found"
KEY, PIN, DATA = "47", "222222", b"signed in a virtual machine"
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(DATA).digest()
MODULE, SLOT = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so", "1"
CONTROL, INTERRUPT, BULK_OUT = 0, 3, 0x01
XFR_BLOCK = 0x6F
HARM = ("BUG", "Oops", "usercopy", "WARNING", "Call Trace", "cannot find", "hung task", "protection fault")
ROUND_TRIPS = pathlib.Path(__file__).parents[2] / "benchmarks" / "kernel_round_trips.json"


class CountingReader(SimulatedUsbReader):
    """Counts what crosses the wire for the card."""

    def __init__(self) -> None:
        super().__init__(netkey3())
        self.asked: collections.Counter[int] = collections.Counter()

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        if transfer.endpoint == BULK_OUT:
            self.asked[transfer.data[0]] += 1
        super().submit(transfer, complete)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TlsAuthority:
    return TlsAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def client(authority: TlsAuthority) -> TlsFiles:
    return authority.issue("virtual-machine")


@pytest.fixture(scope="module")
def project(authority: TlsAuthority, client: TlsFiles) -> Mapping[str, Node]:
    """What is ours in the machine, with the client's files."""
    tree = project_files()
    for name, path in {"ca": authority.ca, "cert": client.certificate, "key": client.key or ""}.items():
        tree[f"project/{name}.pem"] = qemu_image.private_file(pathlib.Path(path).read_bytes())
    return tree


@pytest.fixture(scope="module")
def vm(
    tool: Callable[[str], str],
    pytestconfig: pytest.Config,
    project: Mapping[str, Node],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[VirtualMachine]:
    program = tool("qemu-system-x86_64")
    assert pytestconfig.cache is not None
    cache = pytestconfig.cache.mkdir("kernel")
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            image = qemu_image.build(cache)
        except qemu_image.PackagesMissing as error:
            give_up = pytest.fail if pytestconfig.getoption("--require-real") else pytest.skip
            give_up(f"the packages of the virtual machine cannot be had: {error}")
    with contextlib.ExitStack() as stack:
        machine = started(
            stack,
            tmp_path_factory,
            lambda accelerator, place: VirtualMachine(program, image, project, accelerator=accelerator, folder=place),
        )
        machine.start("pcscd", "pcscd", "--foreground")
        yield machine


def started(
    stack: contextlib.ExitStack,
    tmp_path_factory: pytest.TempPathFactory,
    make: Callable[[str, pathlib.Path], VirtualMachine],
) -> VirtualMachine:
    """By the first accelerator that brings it up."""
    *first, last = accelerators()
    for accelerator in first:
        with contextlib.suppress(TimeoutError):
            return stack.enter_context(make(accelerator, tmp_path_factory.mktemp(accelerator)))
    return stack.enter_context(make(last, tmp_path_factory.mktemp(last)))


@contextlib.contextmanager
def attached(vm: VirtualMachine, name: str, address: str) -> Iterator[None]:
    """`demail-hw attach`, to the end of the block."""
    has_no_reader(vm)  # pcscd hears later than others that the last one is gone
    vm.start(name, "python3", "/project/attach.py", address)
    try:
        yield
    finally:
        code = vm.wait(name, number=signal.SIGTERM)
        said = vm.log(name)
    assert code == 0, said
    assert ends(said)[-1] == "stopped"


def ends(said: str) -> list[str]:
    """The states of an attachment, and how it ended."""
    return [line.get("state", line.get("end")) for line in map(json.loads, said.splitlines())]


def has_reader(vm: VirtualMachine) -> None:
    vm.until(READER, "opensc-tool", "--list-readers")


def has_no_reader(vm: VirtualMachine) -> None:
    vm.until(NO_READER, "opensc-tool", "--list-readers")


def answer_to_reset(vm: VirtualMachine) -> bytes:
    return bytes.fromhex(vm.good("opensc-tool", "--atr").strip().replace(":", ""))


def sign(vm: VirtualMachine) -> bytes:
    put(vm, "/tmp/input", DIGEST_INFO)
    key = ("--key", KEY, "--pkcs1", "--pin", PIN)
    vm.good("pkcs15-crypt", "--sign", *key, "--raw", "--input", "/tmp/input", "--output", "/tmp/output")
    return base64.b64decode(vm.good("base64", "/tmp/output"))


def put(vm: VirtualMachine, path: str, content: bytes) -> None:
    vm.good("sh", "-c", f"echo {base64.b64encode(content).decode()} | base64 -d > {path}")


def check_signature(vm: VirtualMachine, signature: bytes) -> None:
    certificate = x509.load_pem_x509_certificate(vm.good("pkcs15-tool", "--read-certificate", KEY).encode())
    public = certificate.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(signature, DATA, padding.PKCS1v15(), hashes.SHA256())


def test_a_reader_of_this_kernel(vm: VirtualMachine) -> None:
    reader = CountingReader()
    with UsbIpServer([reader], port=0) as server, attached(vm, "plain", f"usbip://{HOST}:{server.port}/"):
        has_reader(vm)

        assert answer_to_reset(vm) == netkey3().atr
        assert f"1-1 -> usbip://{HOST}:{server.port}/1-1" in vm.good("usbip", "port")
        check_signature(vm, sign(vm))
        measured = round_trips(vm, reader)
    assert READER not in vm.until(NO_READER, "opensc-tool", "--list-readers").stdout
    assert "usbip://" not in vm.good("usbip", "port")
    assert vm.good("ls", "/run/vhci_hcd") == ""
    assert measured == json.loads(ROUND_TRIPS.read_text())


def round_trips(vm: VirtualMachine, reader: CountingReader) -> object:
    """What OpenSC costs through the kernel: a program that signs once, and one more signature in an open session."""
    once = cost(reader, lambda: check_signature(vm, sign_in_session(vm, times=1)))
    thrice = cost(reader, lambda: check_signature(vm, sign_in_session(vm, times=3)))
    return {
        "pkcs15-crypt --sign": on_the_wire(cost(reader, lambda: sign(vm))),
        "a signature more in a PKCS#11 session": on_the_wire((thrice - once) // 2),
    }


def cost(reader: CountingReader, action: Callable[[], object]) -> int:
    """In commands for the card."""
    before = reader.asked[XFR_BLOCK]
    action()
    return reader.asked[XFR_BLOCK] - before


def on_the_wire(commands: int) -> Mapping[str, int]:
    """libccid waits for the end of each transfer: there are two, out and in, for a command."""
    return {"commands": commands, "round_trips": 2 * commands}


def sign_in_session(vm: VirtualMachine, *, times: int) -> bytes:
    said = vm.good("python3", "/project/sign.py", MODULE, SLOT, PIN, KEY, DIGEST_INFO.hex(), str(times))
    return bytes.fromhex(said)


def test_a_cut_link_heals(vm: VirtualMachine) -> None:
    has_no_reader(vm)
    with UsbIpServer([CountingReader()], port=0) as server:
        port = server.port
        vm.start("healing", "python3", "/project/attach.py", f"usbip://{HOST}:{port}/serial=53692013000000")
        has_reader(vm)
    has_no_reader(vm)
    with UsbIpServer([CountingReader()], port=port):
        has_reader(vm)

        assert answer_to_reset(vm) == netkey3().atr
        check_signature(vm, sign(vm))
        number = re.findall(r"at port (\d+)", vm.log("healing"))[-1]
        vm.good("usbip", "detach", "--port", number)
        # Whoever detaches the reader means it.
        assert vm.wait("healing") == 0
    met = ends(vm.log("healing"))
    assert met.count("attached") == 2
    assert met[-1] == "detached"


def test_through_tls(vm: VirtualMachine, authority: TlsAuthority) -> None:
    context = server_context(authority.issue("server", ip=HOST))
    files = "&".join(f"{name}=/project/{name}.pem" for name in ("ca", "cert", "key"))
    with (
        UsbIpServer([CountingReader()], port=0, context=context) as server,
        attached(vm, "tls", f"usbips://{HOST}:{server.port}/?{files}"),
    ):
        has_reader(vm)

        assert answer_to_reset(vm) == netkey3().atr
        check_signature(vm, sign(vm))


@pytest.mark.parametrize(
    ("lie", "endpoint"),
    [*((lie, INTERRUPT) for lie in LIES.values()), (as_keyboard, CONTROL)],
    ids=[*LIES, "another device than before"],
)
def test_a_lying_server_does_no_harm(vm: VirtualMachine, lie: Lie, endpoint: int) -> None:
    """An answer of more bytes than were asked for ends this kernel, if it comes to it."""
    vm.good("dmesg", "-c")
    with (
        UsbIpServer([CountingReader()], port=0) as server,
        LyingServer(server.port, lie, endpoint=endpoint) as liar,
    ):
        vm.start("lied-to", "python3", "/project/attach.py", f"usbip://{HOST}:{liar.port}/")
        assert liar.hung_up.acquire(timeout=SECONDS)
        code = vm.wait("lied-to", number=signal.SIGTERM)
    said = vm.good("dmesg")

    assert [word for word in HARM if word in said] == []
    assert "The USB/IP" in vm.log("lied-to")
    assert code == 0


def test_the_kernel_works_after_all_that(vm: VirtualMachine) -> None:
    with UsbIpServer([CountingReader()], port=0) as server, attached(vm, "after", f"usbip://{HOST}:{server.port}/"):
        has_reader(vm)
        assert answer_to_reset(vm) == netkey3().atr
