"""One address names a reader everywhere: in the API, on the command line, in the configuration.

::

    usbip://HOST[:3240]/                the only reader on a USB server
    usbip://HOST/serial=53692013000000  by serial number; also /04e6:5710 (VID:PID) and /1-1 (bus id)
    usbips://HOST[:3241]/...            the same through TLS; its files: ?cert=FILE&key=FILE&ca=FILE, or [tls] of the
                                        configuration
    pcsc:NAME-OR-GLOB                   a reader of the PC/SC service: the only reader, or the only one with a card
    libusb:                             the only reader on this machine's USB; or serial=, VID:PID, bus id as above
    serial:/dev/ttyUSB0                 a serial reader; also serial:socket://HOST:PORT, serial:rfc2217://HOST:PORT
    sim:PERSONALITY                     a simulated card, in process; ?profile=NAME: in this simulated reader
    replay:FILE                         a recorded card in the place of a real one
    binding:NAME                        a reader of a USB server that the configuration names
    ...?capture=FILE                    of usbip: and usbips:, what is carried, as pcapng with PINs masked
    ...?card=ICCSN                      of several readers, the one with this card; and refuse any other card
    ...?reader=SERIAL                   refuse any other reader
    ...?interface=NUMBER                of a USB device that is several readers in one, this one; else the first
    ...?share=shared                    let others use the card beside us (only pcsc: takes it); else exclusive

A bus id names a socket of the USB server and not a reader: it is not an identity. An ICCSN is the serial number that
``card info`` shows, 20 digits as a rule; blanks in it do not count.
"""

import dataclasses
import re
import urllib.parse

__all__ = ["Address", "netloc"]

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+]*")
_VID_PID = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})")
_BUS_ID = re.compile(r"[0-9]+-[0-9]+(\.[0-9]+)*")
_ICCSN = re.compile(r"([0-9A-F]{2})+")
_QUERY_KEYS = frozenset({"ca", "capture", "card", "cert", "interface", "key", "profile", "reader", "share"})
_INTERFACE_NUMBER = re.compile(r"[0-9]{1,3}", re.ASCII)
_MAX_INTERFACE = 0xFF
_NO_SERIAL = "serial="
_SHARE_MODES = frozenset({"exclusive", "shared"})


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """A parsed reader address. ``ValueError`` from :meth:`parse` says what is wrong with a text.

    ``selector``: what follows the host or the scheme, as written. ``card``: the ICCSN that is demanded.
    ``reader``: the reader's serial number that is demanded. ``share``: ``exclusive`` or ``shared``, if it is said.
    ``interface``: bInterfaceNumber of the reader that is meant, of a USB device with several.
    ``cert``, ``key``, ``ca``: PEM files for TLS: our certificate, its key, and whom we trust.
    ``profile``: what a simulated reader is. ``capture``: the file that what is carried goes to.
    ``tls_table``: the table of the configuration that the TLS files come from, for remedies; it is in no text, and
    empty where the address itself names them.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    selector: str = ""
    card: str | None = None
    reader: str | None = None
    share: str | None = None
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    profile: str | None = None
    capture: str | None = None
    interface: int | None = None
    tls_table: str = dataclasses.field(default="", compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an address from text."""
        scheme, colon, _ = text.partition(":")
        if not colon or not _SCHEME.fullmatch(scheme):
            raise ValueError(f"{text!r} is no reader address: it has no scheme such as usbip:, pcsc: or sim:")
        if text != text.strip():
            raise ValueError(f"{text!r} begins or ends with a blank: leave it out, or write %20")
        parts = urllib.parse.urlsplit(text, allow_fragments=False)
        if parts.username is not None or parts.password is not None:
            raise ValueError("a reader address takes no user or password")
        query = _parse_query(text, parts.query)
        selector = urllib.parse.unquote(parts.path.lstrip("/") if parts.netloc else parts.path)
        if selector == _NO_SERIAL:
            raise ValueError(f"{text!r}: the serial number is empty")
        return cls(
            scheme=scheme.lower(),
            host=parts.hostname or "",
            port=_port(text, parts),
            selector=selector,
            card=query.get("card"),
            reader=query.get("reader"),
            share=query.get("share"),
            cert=query.get("cert"),
            key=query.get("key"),
            ca=query.get("ca"),
            profile=query.get("profile"),
            capture=query.get("capture"),
            interface=_interface(text, query.get("interface")),
        )

    @property
    def serial(self) -> str | None:
        """The serial number of a ``serial=`` selector."""
        key, equals, value = self.selector.partition("=")
        return value if equals and key == "serial" else None

    @property
    def vendor_product(self) -> tuple[int, int] | None:
        """Vendor and product id of a ``VID:PID`` selector."""
        match = _VID_PID.fullmatch(self.selector)
        return (int(match[1], 16), int(match[2], 16)) if match else None

    @property
    def bus_id(self) -> str | None:
        """The bus id of a selector such as ``1-1``."""
        return self.selector if _BUS_ID.fullmatch(self.selector) else None

    def __str__(self) -> str:
        pairs = [(key, value) for key in sorted(_QUERY_KEYS) if (value := getattr(self, key)) not in (None, "")]
        query = urllib.parse.urlencode(pairs, safe="/:")
        where = f"//{netloc(self.host, self.port or None)}/" if self.host else ""
        return (
            f"{self.scheme}:{where}{urllib.parse.quote(self.selector, safe='=:/-.,*')}{'?' if query else ''}{query}"
        )


def netloc(host: str, port: int | None) -> str:
    """Host and port as an address has them (RFC 3986, 3.2.2)."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _port(text: str, parts: urllib.parse.SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        raise ValueError(f"{text!r}: the port is no number up to 65535") from None


def _parse_query(text: str, query: str) -> dict[str, str]:
    """What is demanded: each key once, and never nothing, as an empty variable in a script would have it."""
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    demands = dict(pairs)
    unknown = demands.keys() - _QUERY_KEYS
    if unknown:
        raise ValueError(f"{text!r}: unknown parameter {min(unknown)!r}; known: {', '.join(sorted(_QUERY_KEYS))}")
    if len(demands) < len(pairs) or not all(demands.values()):
        raise ValueError(f"{text!r}: a parameter is empty or stands there twice")
    if demands.get("share", "exclusive") not in _SHARE_MODES:
        raise ValueError(f"{text!r}: share is exclusive or shared")
    if "card" in demands:
        demands["card"] = _iccsn(text, demands["card"])
    return demands


def _interface(text: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not _INTERFACE_NUMBER.fullmatch(value) or int(value) > _MAX_INTERFACE:
        raise ValueError(f"{text!r}: the interface is no number up to {_MAX_INTERFACE}")
    return int(value)


def _iccsn(text: str, value: str) -> str:
    number = "".join(value.split()).upper()
    if not _ICCSN.fullmatch(number):
        raise ValueError(
            f"{text!r}: card is the serial number that demail-hw card info shows of a card, as a rule 20 digits; "
            "they are hexadecimal, two for each byte"
        )
    return number
