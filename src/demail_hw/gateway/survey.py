"""A look at what a gateway would pick, without any key.

``handshake_failure`` before the ServerHello says that nothing offered was acceptable, not what. A second handshake
that offers everything shows which suite or curve the gateway wants. It offers no client certificate, ends before
anything is signed, trusts nothing and sends nothing: it is not a second try.
"""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Final

from demail_hw.gateway.findings import Finding, Situation
from demail_hw.gateway.handshake import ClientHello, HandshakeObserver, NamedGroup, TlsVersion, code_name
from demail_hw.gateway.stream import Endpoint, TlsStream, open_connection, resolve
from demail_hw.interfaces import Deadline

__all__ = ["explain_refusal"]

_EVERYTHING: Final = "ALL:!aNULL:!eNULL:@SECLEVEL=1"
_SUITE_CODE: Final = 0xFFFF
"""The lower half of an OpenSSL cipher id is the code point of the suite."""


def explain_refusal(
    situation: Situation, context: ssl.SSLContext, *, deadline: Deadline
) -> tuple[Finding, str] | None:
    """Which of suite and curve the gateway refused in an offer of this context; ``None`` if it does not show."""
    offered = situation.observer.client_hello
    if offered is None:
        return None
    for other in _wider_offers(context):
        picked = _picked(situation.endpoint, other, deadline=deadline)
        if picked.server_hello is not None:
            return _compare(offered, picked, _suite_names(context, other))
    return None


def _wider_offers(context: ssl.SSLContext) -> Iterator[ssl.SSLContext]:
    """First the same suites with every curve, then every suite."""
    yield _keyless(context, ":".join(name for name in _suite_names(context).values() if not _is_tls13(name)))
    yield _keyless(context, _EVERYTHING)


def _keyless(context: ssl.SSLContext, ciphers: str) -> ssl.SSLContext:
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    other.minimum_version, other.maximum_version = context.minimum_version, context.maximum_version
    # Nothing is sent over it and nothing believed: it ends with the server's first words.
    other.check_hostname = False
    other.verify_mode = ssl.CERT_NONE
    if ciphers:
        other.set_ciphers(ciphers)
    return other


def _picked(endpoint: Endpoint, context: ssl.SSLContext, *, deadline: Deadline) -> HandshakeObserver:
    observer = HandshakeObserver()
    with contextlib.suppress(OSError):
        connection = open_connection(resolve(endpoint, deadline=deadline), deadline=deadline)
        with TlsStream(connection, context, server_hostname=endpoint.host, deadline=deadline) as stream:
            observer = stream.observer
            stream.handshake(enough=_has_shown_its_pick)
    return observer


def _has_shown_its_pick(observer: HandshakeObserver) -> bool:
    """The curve, or what comes after it where there is none."""
    return observer.group is not None or observer.certificate_request is not None


def _is_tls13(suite: str) -> bool:
    """The suites of TLS 1.3 have other names in OpenSSL, and are not limited like the others."""
    return suite.startswith("TLS_")


def _suite_names(*contexts: ssl.SSLContext) -> dict[int, str]:
    return {cipher["id"] & _SUITE_CODE: cipher["name"] for context in contexts for cipher in context.get_ciphers()}


def _compare(offered: ClientHello, picked: HandshakeObserver, suites: dict[int, str]) -> tuple[Finding, str] | None:
    assert picked.server_hello is not None
    suite, group = picked.server_hello.suite, picked.group
    curve = "no curve" if group is None else code_name(NamedGroup, group)
    wants = f"it picks {suites.get(suite, 'another')} with {curve}"
    if suite not in offered.suites:
        tls13 = picked.version == TlsVersion.TLS_1_3
        names = ", ".join(
            name for code, name in suites.items() if code in offered.suites and _is_tls13(name) is tls13
        )
        return Finding.CIPHER_SUITE, f"{names} offered; {wants}"
    if group is not None and group not in offered.groups:
        names = ", ".join(code_name(NamedGroup, code) for code in offered.groups)
        return Finding.CURVE, f"{names} offered; {wants}"
    return None
