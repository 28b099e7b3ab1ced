"""What ``demail-hw serve`` exports, where and to whom: the command line before the configuration."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, TypeAlias

import click

from demail_hw.address import Address
from demail_hw.config.loading import LoadedConfiguration
from demail_hw.config.schema import ExportConfig, ServerConfig, ServerTlsConfig, TlsConfig
from demail_hw.errors import ConfigurationError
from demail_hw.usbip.access import ANY_CERTIFICATE, AccessRule, AllowList
from demail_hw.usbip.messages import DEFAULT_PORT

if TYPE_CHECKING:
    import ssl

    from demail_hw_drivers.tls_stream import TlsFiles
    from demail_hw_drivers.usbip_server_counters import ServerLimits

__all__ = ["Grant", "ServeOptions", "ServeSettings", "renewed", "settings_of", "tls_files"]

Grant: TypeAlias = tuple[str | None, AccessRule]
"""A rule, and the bus id that it is for; ``None`` for all."""

_STANDARD_ERROR: Final = "-"
_NOTHING: Final = (
    "name a READER, or write [[server.exports]] into the configuration (demail-hw config path tells which counts)"
)


@dataclasses.dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says."""

    readers: Sequence[Address] = ()
    listen: tuple[str, int] | None = None
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    crl: Sequence[str] = ()
    grants: Sequence[Grant] = ()
    audit: str | None = None
    capture: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ServeSettings:
    """What counts. ``devices``: by bus id; ``allowed``: ``None`` lets in whomever TLS lets in."""

    devices: Mapping[str, Address]
    host: str
    port: int
    files: "TlsFiles | None"
    allowed: AllowList | None
    audit: str
    capture: str | None
    limits: "ServerLimits"
    options: ServeOptions
    loaded: LoadedConfiguration

    def context(self) -> "ssl.SSLContext | None":
        """TLS with the files as they are now. Errors: :class:`~demail_hw.errors.ConfigurationError`."""
        from demail_hw_drivers.tls_stream import server_context

        if self.files is None:
            return None
        with nullcontext() if self.options.cert else self.loaded.blamed("server", "tls"):
            return server_context(self.files)

    def blamed(self, number: int) -> AbstractContextManager[None]:
        """An error of the device with this number, from 0 on, is told with the configuration's line."""
        return nullcontext() if self.options.readers else self.loaded.blamed("server", "exports", number, "device")

    def stays_with(self, other: "ServeSettings") -> bool:
        """Do both export the same devices at the same place, with TLS or without?"""
        mine, theirs = (
            (each.devices, each.host, each.port, each.audit, each.capture, each.limits, each.files is None)
            for each in (self, other)
        )
        return mine == theirs


def settings_of(options: ServeOptions, loaded: LoadedConfiguration) -> ServeSettings:
    """Each option goes before its key. Readers go before all exports of the configuration, and ``--allow`` before
    all their rules.

    Errors: ``click.UsageError``; :class:`~demail_hw.errors.ConfigurationError`.
    """
    from demail_hw_drivers.tls_stream import TLS_PORT

    server = loaded.configuration.server or ServerConfig()
    devices = _devices(options, server.exports)
    files = _files(options, server)
    host, port = options.listen or (server.host, server.port)
    usual = DEFAULT_PORT if files is None else TLS_PORT
    audit = options.audit or (str(server.audit) if server.audit else _STANDARD_ERROR)
    capture = options.capture or (str(server.capture) if server.capture else None)
    allowed = _allowed(options, devices, server.exports, secured=files is not None)
    return ServeSettings(
        devices,
        host,
        usual if port is None else port,
        files,
        allowed,
        audit,
        capture,
        _limits(server),
        options,
        loaded,
    )


def _limits(server: ServerConfig) -> "ServerLimits":
    from demail_hw_drivers.usbip_server_counters import ServerLimits

    usual = ServerLimits()
    return dataclasses.replace(
        usual,
        connections=server.connections or usual.connections,
        connections_per_address=server.connections_per_address or usual.connections_per_address,
    )


def _devices(options: ServeOptions, exports: Sequence[ExportConfig]) -> Mapping[str, Address]:
    readers = options.readers or [Address.parse(export.device) for export in exports]
    if not readers:
        raise click.UsageError(_NOTHING)
    return {f"1-{number}": reader for number, reader in enumerate(readers, start=1)}


def _files(options: ServeOptions, server: ServerConfig) -> "TlsFiles | None":
    from demail_hw_drivers.tls_stream import TlsFiles

    if options.cert and options.ca:
        return TlsFiles(options.cert, options.key, options.ca, tuple(options.crl))
    if options.cert or options.key or options.ca or options.crl:
        raise click.UsageError("TLS needs --cert and --ca: who the server is, and whom it lets in")
    return None if server.tls is None else tls_files(server.tls)


def tls_files(tls: TlsConfig) -> "TlsFiles":
    """The files of a table of the configuration."""
    from demail_hw_drivers.tls_stream import TlsFiles

    crl = tls.crl if isinstance(tls, ServerTlsConfig) else ()
    return TlsFiles(str(tls.certificate), str(tls.key), str(tls.ca), tuple(map(str, crl)))


def _allowed(
    options: ServeOptions, devices: Mapping[str, Address], exports: Sequence[ExportConfig], *, secured: bool
) -> AllowList | None:
    if options.grants:
        return _granted(options.grants, devices, secured=secured)
    if not secured:
        return None
    if options.readers:
        return dict(_rules_of_readers(devices, exports))
    return {bus_id: export.rules or (ANY_CERTIFICATE,) for bus_id, export in zip(devices, exports, strict=True)}


def _granted(grants: Sequence[Grant], devices: Mapping[str, Address], *, secured: bool) -> AllowList:
    if not secured:
        raise click.UsageError("--allow needs --cert and --ca, or [server.tls]: plain USB/IP does not know who comes")
    unknown = {bus_id for bus_id, _ in grants if bus_id is not None} - devices.keys()
    if unknown:
        raise click.UsageError(f"--allow names {min(unknown)}, and there are only {', '.join(devices)}")
    return {each: [rule for bus_id, rule in grants if bus_id in (None, each)] for each in devices}


def _rules_of_readers(
    devices: Mapping[str, Address], exports: Sequence[ExportConfig]
) -> Iterator[tuple[str, Sequence[AccessRule]]]:
    """A reader that the configuration exports too keeps its rules: naming it opens it to nobody else.

    One reader has many addresses. Where there are rules, one that is written otherwise is refused: it may be theirs.
    """
    restricted = any(export.rules for export in exports)
    for bus_id, reader in devices.items():
        same = [export for export in exports if Address.parse(export.device) == reader]
        if restricted and not same:
            raise click.UsageError(
                f"the rules of [[server.exports]] name no {reader}: write it as there, or say with --allow who may "
                "have it"
            )
        yield bus_id, [rule for export in same for rule in export.rules] or (ANY_CERTIFICATE,)


def renewed(before: ServeSettings, loaded: LoadedConfiguration) -> ServeSettings:
    """The same options with a configuration that was read again.

    Errors: as :func:`settings_of`; :class:`~demail_hw.errors.ConfigurationError` if more than rules and certificates
    has changed.
    """
    after = settings_of(before.options, loaded)
    if not after.stays_with(before):
        raise ConfigurationError(
            "The devices, the place where the server listens, its audit, capture and limits, and whether it speaks "
            "TLS change only by a restart.",
            file=None if loaded.file is None else str(loaded.file),
            remedy="Restart the server; the rules and certificates of before hold until then.",
        )
    return after
