"""What can stand in a configuration, as frozen values. Imports no library: a program can make them by hand too.

A value that makes no sense is a :class:`FieldError`, which names its field.
"""

import dataclasses
import enum
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeVar

from demail_hw.address import Address
from demail_hw.errors import ConfigurationError
from demail_hw.pin_sources import SOURCES
from demail_hw.usbip.access import AccessRule
from demail_hw.usbip.binding import RetryLimits

__all__ = [
    "BindingConfig",
    "BindingMode",
    "CardConfig",
    "Configuration",
    "ExportConfig",
    "FieldError",
    "ServerConfig",
    "ServerTlsConfig",
    "TlsConfig",
]

_MAX_PORT: Final = 0xFFFF
_MAX_INTERFACE: Final = 0xFF
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VID_PID: Final = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}")
_BUS_ID: Final = re.compile(r"[0-9]+-[0-9]+(\.[0-9]+)*")
_PIN_SOURCE: Final = re.compile(r"prompt:|(file|credential|fd|env|keyring):.+")
_CREDENTIAL: Final = "credential:"
_Value = TypeVar("_Value")
_SCHEMES: Final = {False: "usbip", True: "usbips"}


class FieldError(ValueError):
    """A value makes no sense. ``field``: whose; ``remedy``: one sentence. Never the value of a PIN."""

    def __init__(self, field: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.remedy = remedy


class BindingMode(enum.Enum):
    """``USER``: spoken to by this program, without root. ``KERNEL``: attached to Linux' vhci, for every program."""

    USER = "user"
    KERNEL = "kernel"


@dataclasses.dataclass(frozen=True, slots=True)
class TlsConfig:
    """Who one is in TLS 1.3, and whom one believes: files in PEM.

    ``ca``: the authorities of the other side. A path that is not absolute begins at the configuration's folder;
    ``credential:NAME`` is a credential of the service (systemd.exec(5), LoadCredential=).
    """

    certificate: Path
    key: Path
    ca: Path

    def anchored(self, folder: Path) -> Self:
        """With paths that begin at this folder, if they are not absolute."""
        certificate, key, ca = (_anchored(folder, path) for path in (self.certificate, self.key, self.ca))
        return dataclasses.replace(self, certificate=certificate, key=key, ca=ca)

    def of(self, address: Address, *, table: str) -> Address:
        """The address with these files. ``table``: where they stand in the configuration, for people."""
        cert, key, ca = str(self.certificate), str(self.key), str(self.ca)
        return dataclasses.replace(address, cert=cert, key=key, ca=ca, tls_table=table)


@dataclasses.dataclass(frozen=True, slots=True)
class ServerTlsConfig(TlsConfig):
    """The same of a server. ``crl``: the lists of what its ``ca`` has revoked (RFC 5280, 5), in PEM."""

    crl: tuple[Path, ...] = ()

    def anchored(self, folder: Path) -> Self:
        """As of any."""
        # Not super(): a dataclass with slots is another class than the one that it was written as.
        mine = TlsConfig.anchored(self, folder)
        return dataclasses.replace(mine, crl=tuple(_anchored(folder, path) for path in self.crl))


@dataclasses.dataclass(frozen=True, slots=True)
class BindingConfig:
    """A device on a USB server: the only reader there, or the one with this ``serial``, ``vid_pid`` or ``bus_id``.

    A bus id names a socket of the server and not a device. ``port``: 3240, or 3241 with TLS, unless it is said.
    ``interface``: bInterfaceNumber of the reader, where the device is several. ``capture``: the file that what is
    carried goes to.
    """

    host: str
    port: int | None = None
    serial: str | None = None
    vid_pid: str | None = None
    bus_id: str | None = None
    interface: int | None = None
    mode: BindingMode = BindingMode.USER
    enabled: bool = True
    capture: Path | None = None
    tls: TlsConfig | None = None
    retry: RetryLimits = dataclasses.field(default_factory=RetryLimits)

    def __post_init__(self) -> None:
        _require_host(self.host)
        if self.port is not None:
            _require_port(self.port)
        if self.serial is not None and not self.serial:
            raise FieldError("serial", "it is empty")
        _require_form("vid_pid", self.vid_pid, _VID_PID, "four hexadecimal digits, a colon, four more: 04e6:5710")
        _require_form("bus_id", self.bus_id, _BUS_ID, "written as in 1-1 or 2-1.4")
        _require_interface(self.interface, self.mode)
        named = [name for name in ("serial", "vid_pid", "bus_id") if getattr(self, name) is not None]
        if len(named) > 1:
            raise FieldError(named[1], f"the device is named by {named[0]} already", "Keep one of them.")

    @property
    def address(self) -> Address:
        """Where the device is, as ``usbip:`` or ``usbips:``."""
        selector = f"serial={self.serial}" if self.serial else self.vid_pid or self.bus_id or ""
        capture = None if self.capture is None else str(self.capture)
        scheme = _SCHEMES[self.tls is not None]
        address = Address(scheme, self.host, self.port, selector, capture=capture, interface=self.interface)
        return address if self.tls is None else self.tls.of(address, table="tls")

    def address_of(self, name: str) -> Address:
        """The same of a binding of this name: remedies say the whole key of a TLS file."""
        address = self.address
        return dataclasses.replace(address, tls_table=address.tls_table and f"bindings.{name}.{address.tls_table}")


@dataclasses.dataclass(frozen=True, slots=True)
class ExportConfig:
    """A device that the server exports. ``device``: its reader address. ``allow``: whose certificates may import it,
    in the grammar of :mod:`demail_hw.usbip.access`; empty for whoever reaches the server, which with TLS means
    ``any``."""

    device: str
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _parse_address("device", self.device)
        _ = self.rules

    @property
    def rules(self) -> tuple[AccessRule, ...]:
        """The rules of ``allow``."""
        return tuple(map(_parse_rule, self.allow))


@dataclasses.dataclass(frozen=True, slots=True)
class ServerConfig:
    """A USB server. It listens on this machine alone unless a ``host`` is said; ``port``: 3240, or 3241 with TLS.
    ``audit``: the file that a line goes to for each import and release; standard error without it. ``capture``: the
    file that what is carried goes to. ``connections``: the most at a time, 64 without it; of these
    ``connections_per_address``, 32 without it."""

    host: str = "127.0.0.1"
    port: int | None = None
    tls: ServerTlsConfig | None = None
    audit: Path | None = None
    capture: Path | None = None
    connections: int | None = None
    connections_per_address: int | None = None
    exports: tuple[ExportConfig, ...] = ()

    def __post_init__(self) -> None:
        _require_host(self.host)
        if self.port is not None:
            _require_port(self.port)
        for field in ("connections", "connections_per_address"):
            _require_some(field, getattr(self, field))
        if self.tls is None and any(export.allow for export in self.exports):
            raise FieldError(
                "exports", "allow names certificates, and without tls nobody shows one", "Add [server.tls]."
            )


@dataclasses.dataclass(frozen=True, slots=True)
class CardConfig:
    """A card. ``reader``: a reader address. ``iccsn``: the card that is demanded. ``pin``: its PIN's source."""

    reader: str
    iccsn: str | None = None
    pin: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        address = _parse_address("reader", self.reader)
        if self.iccsn is not None:
            if address.card is not None:
                raise FieldError("iccsn", "the reader's address demands a card already", "Keep one of them.")
            try:
                _ = self.address
            except ValueError:
                raise FieldError("iccsn", "must be the serial number of a card, as a rule 20 digits") from None
        if self.pin is not None:
            _require_pin_source(self.pin)

    @property
    def address(self) -> Address:
        """The reader, with the card that is demanded."""
        if self.iccsn is None:
            return Address.parse(self.reader)
        return Address.parse(f"{self.reader}{'&' if '?' in self.reader else '?'}card={self.iccsn}")


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """A whole configuration; without arguments, an empty one. ``bindings`` and ``cards`` by their names. ``tls``: the
    files of every ``usbips:`` address that names none itself; bindings and the server have their own."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    bindings: dict[str, BindingConfig] = dataclasses.field(default_factory=dict)
    server: ServerConfig | None = None
    tls: TlsConfig | None = None
    cards: dict[str, CardConfig] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in ("bindings", "cards"):
            for name in getattr(self, table):
                if not _NAME.fullmatch(name):
                    raise FieldError(table, f"{name!r} is no name", "Use letters, digits, dots, - and _.")

    def binding(self, name: str) -> BindingConfig:
        """The binding of this name. :class:`~demail_hw.errors.ConfigurationError` if there is none."""
        return _named(self.bindings, name, "binding")

    def card(self, name: str) -> CardConfig:
        """The card of this name. :class:`~demail_hw.errors.ConfigurationError` if there is none."""
        return _named(self.cards, name, "card")


def _anchored(folder: Path, path: Path) -> Path:
    return path if str(path).startswith(_CREDENTIAL) else folder / path


def _named(table: Mapping[str, _Value], name: str, what: str) -> _Value:
    if name in table:
        return table[name]
    known = ", ".join(sorted(table)) or "none"
    raise ConfigurationError(
        f"The configuration has no {what} {name!r}; it has {known}.",
        remedy=f"Add [{what}s.{name}], or see which file counts: demail-hw config path.",
    )


def _require_host(host: str) -> None:
    if not _is_host(host):
        remedy = "The port is a key of its own, port, and no part of it." if ":" in host else ""
        raise FieldError("host", "must be the name or the address of a machine", remedy)


def _is_host(text: str) -> bool:
    if not text or not text.isprintable() or set(text) & set(" /?#@"):
        return False
    try:
        # A name's labels are those of RFC 3490: Python's resolver raises for others.
        _ = ipaddress.IPv6Address(text) if ":" in text else text.encode("idna")
    except ValueError:
        return False
    return True


def _require_port(port: int) -> None:
    if not 0 < port <= _MAX_PORT:
        raise FieldError("port", f"must be a number from 1 to {_MAX_PORT}")


def _require_some(field: str, number: int | None) -> None:
    if number is not None and number < 1:
        raise FieldError(field, "must be 1 or more")


def _require_interface(number: int | None, mode: BindingMode) -> None:
    if number is not None and not 0 <= number <= _MAX_INTERFACE:
        raise FieldError("interface", f"must be a number from 0 to {_MAX_INTERFACE}")
    if number is not None and mode is BindingMode.KERNEL:
        raise FieldError("interface", "the kernel has the whole device, with all its interfaces", "Leave it out.")


def _require_form(field: str, value: str | None, form: re.Pattern[str], meaning: str) -> None:
    if value is not None and not form.fullmatch(value):
        raise FieldError(field, f"must be {meaning}")


def _parse_address(field: str, text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise FieldError(field, str(error)) from None


def _parse_rule(text: str) -> AccessRule:
    try:
        return AccessRule.parse(text)
    except ValueError as error:
        raise FieldError("allow", str(error)) from None


def _require_pin_source(text: str) -> None:
    """The text may be a PIN that somebody wrote there: it is never repeated."""
    named = bool(_PIN_SOURCE.fullmatch(text))
    relative = text.startswith("file:") and not Path(text.removeprefix("file:")).is_absolute()
    del text
    if not named:
        raise FieldError("pin", "it is no PIN source", f"Use {SOURCES}; never the PIN itself.")
    if relative:
        raise FieldError("pin", "the path of a PIN file must be absolute", "Write file:/ and what follows.")
