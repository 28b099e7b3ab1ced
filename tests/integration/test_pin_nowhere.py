"""F93: a PIN is in nothing that the command line or the API leaves behind, whatever goes wrong.

Not in what is printed or logged at DEBUG, in text and in JSON, not in the trace, not in the ledger, not in an
exception: neither in its texts and attributes, nor in any variable of its traceback, nor in anything that these lead
to; and not in the arguments and the environment of the process.

A new command is one row more in ROWS, a new way to fail one in FAULTS.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import click
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options

import demail_hw.cli.main as command_line
from demail_hw import open_provider
from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.simulator_process import running_simulator
from demail_hw.identity import KeyRole
from demail_hw.interfaces import Transfer, TransferResult
from demail_hw_drivers.tls_stream import server_context
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_drivers.usbip_server_audit import AuditLine
from demail_hw_simulators.ca import telesec_ca, write_trust
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile, TransparentFile
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.card.pins import CardPin
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from pin_hunt import copies, random_pin
from tls_files import TlsAuthority
from watched_client import from_pipe

SUPPORT = Path(__file__).parents[1] / "support"
MESSAGE = b"From: a@example.org\r\nSubject: x\r\n\r\nHallo\r\n"
BINARY = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\n"
OTHER_ICCSN = "89490173510080407144"
PIN_COMMANDS = (0x20, 0x24, 0x2C)
HEADER_SIZE = 4
CCID_HEADER_SIZE = 10
STATUS = ("00200000", "00200001")
PIN = ("0020000010", "0024000020", "002c000020")
PIN_FILES = ("pin", "puk", "new")
RECORDED = "recorded.txt"
REACHABLE = "reachable.txt"
API = "api "
FORMS: list[list[str]] = [[], ["--json"]]
INTERRUPTED = 130
EMPTY_FILE = ("--file", "NKS/4331")
FULL_FILE = ("--file", "NKS/4332")
NKS = 0xDF02


class HookedCard:
    """A card; ``on_pin``: what happens in the place of a command with a PIN."""

    def __init__(self, card: SimulatedTcosCard) -> None:
        self.card = card
        self.on_pin: Callable[[], bytes] | None = None

    def power_on(self) -> bytes:
        return self.card.power_on()

    def power_off(self) -> None:
        self.card.power_off()

    def transmit(self, command: bytes) -> bytes:
        if self.on_pin is not None and command[1] in PIN_COMMANDS and len(command) > HEADER_SIZE:
            return self.on_pin()
        return self.card.transmit(command)

    @property
    def pin(self) -> CardPin:
        return self.card.file_system.root.pins[0]

    @property
    def puk(self) -> CardPin:
        return self.card.file_system.root.pins[1]


class HookedReader:
    """The reader as the USB server exports it. ``before``: what is done with it, once, before a command arrives that
    begins like that."""

    def __init__(self, device: SimulatedUsbReader) -> None:
        self._device = device
        self.before: dict[bytes, Callable[[], object]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def submit(self, transfer: Transfer, complete: Callable[[TransferResult], None]) -> None:
        command = bytes(transfer.data)[CCID_HEADER_SIZE:]
        for header in filter(command.startswith, tuple(self.before)):
            self.before.pop(header)()
        self._device.submit(transfer, complete)


class Bench:
    """A card on a USB server, with PINs that nobody knows, and everything that a command may want to be given."""

    def __init__(self, folder: Path, world: "World") -> None:
        self.folder = folder
        self.world = world
        self.right, self.wrong, self.new_pin, self.puk_value = (random_pin() for _ in range(4))
        self.card = HookedCard(netkey3())
        self.card.pin._value = self.right.encode()
        self.card.puk._value = self.puk_value.encode()
        self._fill(0x4332)
        self.device = SimulatedUsbReader(self.card)
        self.exported = HookedReader(self.device)
        self.server = UsbIpServer([self.exported], port=0)
        self.scheme = "usbip"
        self.demand = ""
        self.environment: dict[str, str] = {"STATE_DIRECTORY": str(folder / "state")}
        self.pin = self.write("pin", f"{self.right}\n".encode())
        self.puk = self.write("puk", f"{self.puk_value}\n".encode())
        self.new = self.write("new", f"{self.new_pin}\n".encode())

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.close()

    def _fill(self, identifier: int) -> None:
        application = self.card.card.file_system.root.files[NKS]
        assert isinstance(application, DedicatedFile)
        file = application.files[identifier]
        assert isinstance(file, TransparentFile)
        file.content[: len(self.world.der)] = self.world.der

    @property
    def secrets(self) -> Sequence[str]:
        return self.right, self.wrong, self.new_pin, self.puk_value

    @property
    def uri(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.port}/{self.demand}"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def write(self, name: str, content: bytes) -> str:
        """A PIN file, as a source."""
        path = self.folder / name
        path.touch(0o600)
        path.write_bytes(content)
        return f"file:{path}"

    @property
    def configuration(self) -> Path:
        """One that names the reader and the PIN's source."""
        path = self.folder / "reader.toml"
        path.write_text(
            f'[bindings.desk]\nhost = "127.0.0.1"\nport = {self.server.port}\n'
            f'[cards.mail]\nreader = "binding:desk"\npin = "{self.pin}"\n'
        )
        return path

    def secure(self) -> None:
        """The server speaks TLS, and its audit is looked through too; the client's files are in the configuration."""
        authority = TlsAuthority(self.folder)
        own, client = authority.issue("server", ip="127.0.0.1"), authority.issue("client")
        audit = self.folder / "audit.jsonl"

        def write(line: AuditLine) -> None:
            with audit.open("a") as stream:
                stream.write(f"{line.as_json()}\n")

        self.server.close()
        self.server = UsbIpServer([self.exported], port=0, context=server_context(own), audit=write)
        self.server.start()
        self.scheme = "usbips"
        files = {"certificate": client.certificate, "key": client.key, "ca": client.ca}
        lines = [f'{name} = "{path}"\n' for name, path in files.items()]
        configuration = self.folder / "config.toml"
        configuration.write_text(f"[tls]\n{''.join(lines)}")
        self.environment["DEMAIL_HW_CONFIG"] = str(configuration)

    def hang_up(self) -> bytes:
        """The server is gone, as seen by the client."""
        self.server.hang_up()
        return b""

    def swap(self) -> None:
        """Another card is in the reader, before anybody looks."""
        self.device.remove()
        self.device.insert(netkey3(iccsn=OTHER_ICCSN))

    # --- what goes wrong

    @property
    def pin_files(self) -> Sequence[Path]:
        return [self.folder / name for name in PIN_FILES]

    def give_wrong_ones(self) -> None:
        for name in ("pin", "puk"):
            self.write(name, self.wrong.encode())

    def give_literals(self) -> None:
        self.pin, self.puk, self.new = self.right, self.puk_value, self.new_pin

    def ask_for(self, demand: str) -> None:
        self.demand = demand

    def give(self, source: str) -> None:
        """Another kind of source. Its PIN stands in the environment of the command only if that is the source."""
        self.pin = source
        variables = {
            "credential": {"CREDENTIALS_DIRECTORY": str(self.folder)},
            "env": {"THE_PIN": self.right, "THE_BAD_PIN": f"{self.right}\n"},
        }
        self.environment |= variables.get(source.partition(":")[0], {})

    def spoil_ledger(self) -> None:
        (self.folder / "state").write_text("where a folder should be")

    def interrupt(self) -> bytes:
        """Ctrl-C."""
        self.world.interrupt()
        return b""

    # --- what is done, and left

    def run(self, *arguments: str | Path) -> int:
        """The exit code."""
        options = [] if arguments[0] == "api" else ["-v", "--trace", self.folder / "trace.txt"]
        return self.world.run([*options, *arguments], self.environment, self.folder)

    def printed(self) -> str:
        return (self.folder / "output.txt").read_text()

    def found(self, *, ignore: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
        """In which files a PIN is that ought not to be there, and how it is spelled."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name not in (*PIN_FILES, *ignore):
                for secret in self.secrets:
                    yield from ((path.name, spelling) for spelling in copies(path.read_bytes(), secret))


class World:
    """What all benches share: the process that runs the commands, a gateway, a message, a certificate."""

    def __init__(self, folder: Path, gateway: str) -> None:
        self.gateway = gateway
        self.folder = folder
        self.message = self._file("message.eml", MESSAGE)
        self.binary = self._file("binary.eml", BINARY)
        with open_provider("sim:netkey3") as provider:
            keys = {identity.role: identity.certificate.public_key() for identity in provider.identities()}
        encryption, signature = keys[KeyRole.ENCRYPTION], keys[KeyRole.SIGNATURE]
        assert isinstance(encryption, rsa.RSAPublicKey)
        assert isinstance(signature, rsa.RSAPublicKey)
        issue = telesec_ca().issue_card_certificate
        builder = PKCS7EnvelopeBuilder().set_data(MESSAGE).add_recipient(issue(KeyRole.ENCRYPTION, encryption))
        self.encrypted = self._file("encrypted.der", builder.encrypt(Encoding.DER, [PKCS7Options.Binary]))
        certificate = issue(KeyRole.SIGNATURE, signature)
        self.der = certificate.public_bytes(Encoding.DER)
        self.certificate = self._file("certificate.pem", certificate.public_bytes(Encoding.PEM))
        write_trust(folder)
        self.ca = folder / "gateway-ca.pem"
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", str(SUPPORT / "forked_cli.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def run(self, arguments: Sequence[str | Path], environment: Mapping[str, str], folder: Path) -> int:
        order = {
            "arguments": [str(each) for each in arguments],
            "environment": environment,
            "output": str(folder / "output.txt"),
            "reachable": str(folder / REACHABLE),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def interrupt(self) -> None:
        """Interrupt the command that runs."""
        template = self._process.pid
        [child] = Path(f"/proc/{template}/task/{template}/children").read_text().split()
        os.kill(int(child), signal.SIGINT)

    def close(self) -> None:
        self._process.communicate(timeout=20)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_simulator("gateway", "--listen", "127.0.0.1:0") as gateway:
        world = World(tmp_path_factory.mktemp("world"), gateway)
        yield world
        world.close()


@pytest.fixture
def bench(tmp_path: Path, world: World) -> Iterator[Bench]:
    (tmp_path / "bench").mkdir()
    with Bench(tmp_path / "bench", world) as bench:
        yield bench


# --- What is run

Arguments = Sequence[str | Path]
SIGN = ("--key", "signature")
ROWS: Mapping[str, Callable[[Bench], Arguments]] = {
    "sign": lambda b: ("sign", b.uri, b.world.message, *SIGN, "--pin", b.pin, "-o", b.out),
    "decrypt": lambda b: ("decrypt", b.uri, b.world.encrypted, "--pin", b.pin, "-o", b.out),
    "probe": lambda b: ("probe", b.uri, "--pin", b.pin, "--gateway", b.world.gateway, "--ca", b.world.ca),
    "csr": lambda b: ("csr", b.uri, *SIGN, "--subject", "CN=x", "--pin", b.pin, "-o", b.out),
    "certs import": lambda b: ("certs", "import", b.uri, b.world.certificate, *EMPTY_FILE, "--pin", b.pin, "--yes"),
    "certs erase": lambda b: ("certs", "erase", b.uri, *FULL_FILE, "--pin", b.pin, "--yes"),
    "pin verify": lambda b: ("pin", "verify", b.uri, "--pin", b.pin),
    "pin change": lambda b: ("pin", "change", b.uri, "--pin", b.pin, "--new", b.new),
    "pin unblock": lambda b: ("pin", "unblock", b.uri, "--puk", b.puk, "--new", b.new),
    "api sign": lambda b: ("api", "sign", b.uri, b.pin),
    "api decrypt": lambda b: ("api", "decrypt", b.uri, b.pin, b.world.encrypted),
    "api change": lambda b: ("api", "change", b.uri, b.pin, b.new),
}
"""Everything that sends a PIN to the card: with a right one it succeeds."""


SOURCE_ROWS = ("sign", "certs import", "pin change", "pin unblock", "api change")
"""Those with one source, and those with two. All others read theirs as "sign" does."""


def initialize(bench: Bench) -> Arguments:
    """Sends one too, but to a card that none of the others can use."""
    return "pin", "initialize", bench.uri, "--new", bench.new


WITHOUT_PIN: Mapping[str, Callable[[Bench], Arguments]] = {
    "binding status": lambda b: ("--config", b.configuration, "binding", "status"),
    "card info": lambda b: ("card", "info", b.uri),
    "certs export": lambda b: ("certs", "export", b.uri, *SIGN, "-o", b.out),
    "certs list": lambda b: ("certs", "list", b.uri),
    "config check": lambda b: ("--config", b.configuration, "config", "check"),
    "config path": lambda b: ("--config", b.configuration, "config", "path"),
    "config schema": lambda b: ("config", "schema"),
    "config show": lambda b: ("--config", b.configuration, "config", "show"),
    "pin status": lambda b: ("pin", "status", b.uri),
    "pin clear": lambda b: ("pin", "clear", b.uri),
    "readers": lambda b: ("readers", b.uri),
    "trace replay": lambda b: ("trace", "replay", b.folder / RECORDED, b.uri),
    "trace show": lambda b: ("trace", "show", b.folder / RECORDED),
}
NOT_RUN: Mapping[str, str] = {
    "attach": "it asks the card nothing; the kernel may",
    "binding off": "it writes a file without a word in it",
    "binding on": "the same",
    "binding watch": "it asks the card nothing, and runs until it is ended",
    "demo": "its PIN is printed in the documents",
    "detach": "there is no card",
    "serve": "what it logs of a session is looked through beside its TLS",
    "simulate ca": "there is no card",
    "simulate gateway": "there is no card",
    "simulate usb-server": "it is the card",
    "setup install": "it knows no card",
    "setup list": "it knows no card",
    "setup show": "it knows no card",
    "simulate vpcd": "it is the card",
    "simulate wut": "there is no card",
    "usb-server discover": "it asks no card",
    "usb-server reset": "it asks no card, and its password is no PIN",
    "usb-server status": "it asks no card",
}


# --- What goes wrong


class Fault(NamedTuple):
    """``prepare``: what is wrong. ``code``: how the command ends then. ``runs``: how often it is called.
    ``given_away``: the caller himself has the PIN in a variable."""

    prepare: Callable[[Bench], object]
    code: ExitCode | int
    runs: int = 1
    given_away: bool = False


def pins(**values: Any) -> Callable[[Bench], None]:
    """PIN and PUK are so on the card."""

    def prepare(bench: Bench) -> None:
        for pin in (bench.card.pin, bench.card.puk):
            for name, value in values.items():
                setattr(pin, name, value)

    return prepare


def sources(change: Callable[[bytes], bytes]) -> Callable[[Bench], None]:
    """What is in the PIN files, from what ought to be there."""

    def prepare(bench: Bench) -> None:
        for path in bench.pin_files:
            path.write_bytes(change(path.read_bytes().rstrip()))

    return prepare


def files(act: Callable[[Path], object]) -> Callable[[Bench], None]:
    """What is done to the PIN files."""

    def prepare(bench: Bench) -> None:
        for path in bench.pin_files:
            act(path)

    return prepare


def at_the_pin(hook: Callable[[Bench], bytes]) -> Callable[[Bench], None]:
    """What happens when the card gets the PIN."""

    def prepare(bench: Bench) -> None:
        bench.card.on_pin = lambda: hook(bench)

    return prepare


def before(headers: Sequence[str], act: Callable[[Bench], object]) -> Callable[[Bench], None]:
    """What somebody does before one of these commands reaches the card."""

    def prepare(bench: Bench) -> None:
        for header in headers:
            bench.exported.before[bytes.fromhex(header)] = lambda: act(bench)

    return prepare


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        make(path)

    return act


def nothing(bench: Bench) -> None:
    """All is well."""


FAULTS: Mapping[str, Fault] = {
    "nothing": Fault(nothing, ExitCode.OK),
    "wrong, and then refused": Fault(Bench.give_wrong_ones, ExitCode.PIN, runs=2),
    "blocked": Fault(pins(tries=0), ExitCode.PIN),
    "NullPIN": Fault(pins(_value=None), ExitCode.PIN),
    "two tries left": Fault(pins(tries=2), ExitCode.PIN),
    "no card": Fault(lambda b: b.device.remove(), ExitCode.NOT_FOUND),
    "another card": Fault(lambda b: b.ask_for("?card=99"), ExitCode.CARD),
    "no server": Fault(lambda b: b.server.close(), ExitCode.TRANSPORT),
    "pulled before it is asked": Fault(before(STATUS, lambda b: b.device.remove()), ExitCode.CARD),
    "pulled before the PIN": Fault(before(PIN, lambda b: b.device.remove()), ExitCode.CARD),
    "swapped before it is asked": Fault(before(STATUS, Bench.swap), ExitCode.CARD),
    "swapped before the PIN": Fault(before(PIN, Bench.swap), ExitCode.CARD),
    "mute at the PIN": Fault(at_the_pin(lambda b: b""), ExitCode.CARD),
    "an unknown status at the PIN": Fault(at_the_pin(lambda b: b"\x6f\x00"), ExitCode.CARD),
    "half a status at the PIN": Fault(at_the_pin(lambda b: b"\x90"), ExitCode.CARD),
    "server gone at the PIN": Fault(at_the_pin(Bench.hang_up), ExitCode.TRANSPORT),
    "Ctrl-C at the PIN": Fault(at_the_pin(Bench.interrupt), INTERRUPTED),
    "ledger not to be written": Fault(Bench.spoil_ledger, ExitCode.PIN),
}
SOURCE_FAULTS: Mapping[str, Fault] = {
    "too short": Fault(sources(lambda pin: pin[:5]), ExitCode.PIN),
    "too long": Fault(sources(lambda pin: pin + pin), ExitCode.PIN),
    "far too long": Fault(sources(lambda pin: pin * 100), ExitCode.PIN),
    "an umlaut": Fault(sources(lambda pin: pin + "ä".encode()), ExitCode.PIN),
    "byte order mark": Fault(sources(lambda pin: b"\xef\xbb\xbf" + pin), ExitCode.PIN),
    "blank behind": Fault(sources(lambda pin: pin + b" \n"), ExitCode.PIN),
    "two carriage returns": Fault(sources(lambda pin: pin + b"\r\r\n"), ExitCode.PIN),
    "in the second line": Fault(sources(lambda pin: b"\n" + pin), ExitCode.PIN),
    "empty file": Fault(sources(lambda pin: b""), ExitCode.PIN),
    "no file": Fault(files(Path.unlink), ExitCode.PIN),
    "a folder": Fault(files(replaced_by(Path.mkdir)), ExitCode.CONFIGURATION),
    "a pipe": Fault(files(replaced_by(os.mkfifo)), ExitCode.CONFIGURATION),
    "others may read": Fault(files(lambda path: path.chmod(0o644)), ExitCode.CONFIGURATION),
    "no source but the PIN": Fault(Bench.give_literals, ExitCode.CONFIGURATION, given_away=True),
}


def check(bench: Bench, arguments: Arguments, code: ExitCode | int, *, ignore: Sequence[str] = ()) -> None:
    """Run it, and look for the PINs in what it leaves."""
    assert bench.run(*arguments) == code, bench.printed()
    assert [*bench.found(ignore=ignore)] == []


def combinations() -> Iterator[Any]:
    """Each row with each fault. Every second one in JSON: so each row and each fault is seen in both forms."""
    for number, row in enumerate(ROWS):
        faults = {**FAULTS, **(SOURCE_FAULTS if row in SOURCE_ROWS else {})}
        for fault, form in zip(faults, itertools.cycle(FORMS[number % 2 :] + FORMS[: number % 2]), strict=False):
            arguments = [] if row.startswith(API) else form
            yield pytest.param(row, faults[fault], arguments, id=f"{fault}-{row}{''.join(arguments)}")


@pytest.mark.parametrize(("row", "fault", "form"), tuple(combinations()))
def test_f93_pin_is_nowhere(bench: Bench, row: str, fault: Fault, form: list[str]) -> None:
    fault.prepare(bench)
    for _ in range(fault.runs):
        check(bench, [*ROWS[row](bench), *form], fault.code, ignore=[REACHABLE] if fault.given_away else [])
    if fault.given_away:  # and so one sees that it would be found there
        assert {name for name, _ in bench.found()} == {REACHABLE}


OTHERS: Mapping[str, tuple[Callable[[Bench], Arguments], Callable[[Bench], object], ExitCode]] = {
    "initialize": (initialize, pins(_value=None), ExitCode.OK),
    "initialize twice": (initialize, nothing, ExitCode.PIN),
    "initialize with a short one": (
        initialize,
        lambda b: [pins(_value=None)(b), sources(lambda pin: pin[:4])(b)],
        ExitCode.PIN,
    ),
    "initialize, mute": (
        initialize,
        lambda b: [pins(_value=None)(b), at_the_pin(lambda b: b"")(b)],
        ExitCode.CARD,
    ),
    "change to a short one": (ROWS["pin change"], lambda b: b.write("new", b.new_pin[:4].encode()), ExitCode.PIN),
    "change to none": (ROWS["pin change"], lambda b: (b.folder / "new").unlink(), ExitCode.PIN),
    "unblock a blocked PIN": (ROWS["pin unblock"], lambda b: setattr(b.card.pin, "tries", 0), ExitCode.OK),
    "a dry run of a change": (lambda b: (*ROWS["pin change"](b), "--dry-run"), nothing, ExitCode.OK),
    "a key that the PIN does not open": (
        lambda b: (*ROWS["sign"](b), "--which", "sigg-1", "--key", "encryption"),
        nothing,
        ExitCode.NOT_FOUND,
    ),
    "a message that is none": (
        lambda b: ("decrypt", b.uri, b.world.message, "--pin", b.pin),
        nothing,
        ExitCode.KEY,
    ),
    "a text that cannot travel": (
        lambda b: ("sign", b.uri, b.world.binary, *SIGN, "--pin", b.pin),
        nothing,
        ExitCode.USAGE,
    ),
    "a result that cannot be written": (ROWS["sign"], lambda b: b.out.mkdir(), ExitCode.USAGE),
    "a certificate that is none": (
        lambda b: ("certs", "import", b.uri, b.world.message, *EMPTY_FILE, "--pin", b.pin, "--yes"),
        nothing,
        ExitCode.KEY,
    ),
    "no gateway": (
        lambda b: ("probe", b.uri, "--pin", b.pin, "--gateway", "https://127.0.0.1:1", "--ca", b.world.ca),
        nothing,
        ExitCode.GATEWAY,
    ),
    "a gateway that nobody vouches for": (
        lambda b: ("probe", b.uri, "--pin", b.pin, "--gateway", b.world.gateway, "--ca", b.world.certificate),
        nothing,
        ExitCode.GATEWAY,
    ),
    "a trace that cannot be written": (
        ROWS["sign"],
        lambda b: (b.folder / "trace.txt").mkdir(),
        ExitCode.CONFIGURATION,
    ),
    "a PIN in the configuration": (
        lambda b: ("--config", b.folder / "new", "config", "check"),
        lambda b: b.write("new", f'[cards.mail]\nreader = "sim:"\npin = "{b.right}"\n'.encode()),
        ExitCode.CONFIGURATION,
    ),
    "TLS": (ROWS["sign"], Bench.secure, ExitCode.OK),
    "TLS, and it is wrong": (ROWS["pin change"], lambda b: [b.secure(), b.give_wrong_ones()], ExitCode.PIN),
    "TLS, and the server is gone at the PIN": (
        ROWS["pin verify"],
        lambda b: [b.secure(), at_the_pin(Bench.hang_up)(b)],
        ExitCode.TRANSPORT,
    ),
    "TLS with files that cannot be used": (
        ROWS["sign"],
        lambda b: [b.secure(), (b.folder / "client.key").write_text("no key")],
        ExitCode.CONFIGURATION,
    ),
    "credential": (ROWS["sign"], lambda b: b.give("credential:pin"), ExitCode.OK),
    "wrong credential": (ROWS["sign"], lambda b: [b.give("credential:pin"), b.give_wrong_ones()], ExitCode.PIN),
    "no credential": (ROWS["sign"], lambda b: b.give("credential:none"), ExitCode.PIN),
    "environment": (ROWS["sign"], lambda b: b.give("env:THE_PIN"), ExitCode.OK),
    "malformed in the environment": (ROWS["sign"], lambda b: b.give("env:THE_BAD_PIN"), ExitCode.PIN),
    "no such variable": (ROWS["sign"], lambda b: b.give("env:NONE"), ExitCode.PIN),
    "a keyring, and none is there": (ROWS["sign"], lambda b: b.give("keyring:demail/card"), ExitCode.PIN),
    "a prompt, and nobody is there": (ROWS["sign"], lambda b: b.give("prompt:"), ExitCode.PIN),
    "a descriptor that is not open": (ROWS["sign"], lambda b: b.give("fd:99"), ExitCode.CONFIGURATION),
    "a function": (lambda b: ("api", "function", b.uri, b.folder / "pin"), nothing, ExitCode.OK),
    "a function, and it is wrong": (
        lambda b: ("api", "function", b.uri, b.folder / "pin"),
        Bench.give_wrong_ones,
        ExitCode.PIN,
    ),
    "a function that fails": (
        lambda b: ("api", "failing", b.uri, b.folder / "pin"),
        nothing,
        ExitCode.PIN,
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_f93_pin_is_nowhere_in_other_cases(bench: Bench, case: str) -> None:
    arguments, prepare, code = OTHERS[case]
    prepare(bench)
    check(bench, arguments(bench), code)


@pytest.mark.parametrize("form", FORMS, ids=["text", "json"])
@pytest.mark.parametrize("row", WITHOUT_PIN)
def test_f93_what_takes_no_pin_tells_none_of_those_before(bench: Bench, row: str, form: list[str]) -> None:
    """After a PIN that was refused: the card, the ledger and a trace know of it."""
    bench.give_wrong_ones()
    check(bench, ROWS["sign"](bench), ExitCode.PIN)
    (bench.folder / "trace.txt").rename(bench.folder / RECORDED)
    # One try is gone, which the recorded answers did not know.
    check(bench, [*WITHOUT_PIN[row](bench), *form], ExitCode.CARD if row == "trace replay" else ExitCode.OK)


def test_what_an_exception_leads_to_is_found(bench: Bench) -> None:
    """A source that keeps the PIN, deep in an object: what is looked through above would hold it."""
    assert bench.run("api", "keeping", bench.uri, bench.folder / "pin") == ExitCode.PIN
    assert [*bench.found()] == [(REACHABLE, "bytes")]


@pytest.mark.parametrize("row", [row for row in ROWS if not row.startswith(API)])
def test_f93_process_tells_no_pin_when_the_card_has_it(bench: Bench, row: str) -> None:
    """Who may look at processes sees their arguments and their environment."""
    seen: list[bytes] = []

    def look() -> bytes:
        seen.extend(Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        return b"\x6f\x00"

    bench.card.on_pin = look
    words = [sys.executable, "-m", "demail_hw.cli", *map(str, ROWS[row](bench))]
    process = subprocess.Popen(words, env={**os.environ, **bench.environment}, stderr=subprocess.DEVNULL)
    assert process.wait(20) == ExitCode.CARD
    command, environment = seen
    assert row.split()[0].encode() in command
    assert b"STATE_DIRECTORY" in environment
    assert [copies(command + environment, secret) for secret in bench.secrets] == [[]] * len(bench.secrets)


def test_f93_descriptor_on_the_command_line(bench: Bench, tmp_path: Path) -> None:
    with from_pipe(tmp_path, bench.right) as given:
        bench.pin = given.source
        done = subprocess.run(
            [sys.executable, "-m", "demail_hw.cli", "-v", *map(str, ROWS["sign"](bench))],
            pass_fds=given.descriptors,
            capture_output=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == ExitCode.OK, done.stderr
    assert [*copies(done.stdout + done.stderr, bench.right), *bench.found()] == []


# --- Is it all?


def leaves(group: click.Group, name: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, f"{name}{word} ")
        else:
            yield f"{name}{word}", command


def test_every_command_is_in_a_row() -> None:
    found = dict(leaves(command_line._group))
    rows = {row for row in ROWS if not row.startswith(API)}
    assert set(found) == {*rows, "pin initialize", *WITHOUT_PIN, *NOT_RUN}
    takes_a_pin = {
        name for name, command in found.items() if {"pin", "puk", "new"} & {each.name for each in command.params}
    }
    assert takes_a_pin == {*rows, "pin initialize"}
