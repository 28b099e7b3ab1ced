"""DNS names and mail addresses for a certificate, checked as strictly as who reads the certificate does."""

import ipaddress
import re
from collections.abc import Sequence
from email.errors import MessageError
from email.headerregistry import Address
from typing import Final

from cryptography import x509

__all__ = ["alternative_names"]

_LONGEST_NAME: Final = 253
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
"""RFC 1034, 3.5 as RFC 1123, 2.1 has it; RFC 5280, 4.2.1.6 wants this form."""
_LONGEST_LOCAL_PART: Final = 64  # RFC 5321, 4.5.3.1.1


def alternative_names(dns: Sequence[str], emails: Sequence[str]) -> tuple[x509.GeneralName, ...]:
    """What goes into subjectAltName (RFC 5280, 4.2.1.6).

    ``dns``: host names, the first label of which may be ``*``. ``emails``: addresses without a name.
    ``ValueError`` with a sentence for one that is neither.
    """
    return (*map(_dns_name, dns), *map(_mail_address, emails))


def _dns_name(text: str) -> x509.GeneralName:
    _check_host_name(text, text.removeprefix("*."))
    return x509.DNSName(text)


def _check_host_name(text: str, host: str) -> None:
    if not host.isascii():
        raise ValueError(f"{text!r} has letters that DNS does not know: write its form of ASCII (xn--...)")
    if _is_ip_address(host):
        raise ValueError(f"{text!r} is an IP address and no DNS name")
    if len(host) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, host.split("."))):
        raise ValueError(f"{text!r} is no DNS name such as gateway.example")


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _mail_address(text: str) -> x509.GeneralName:
    local_part = _local_part(text)
    host = text[len(local_part) + 1 :]
    if f"{local_part}@{host}" != text or len(local_part) > _LONGEST_LOCAL_PART:
        raise _no_address(text)
    _check_host_name(text, host)
    return x509.RFC822Name(text)


def _local_part(text: str) -> str:
    """Of a Mailbox (RFC 5321, 4.1.2), as the standard library reads it."""
    try:
        return Address(addr_spec=text).username
    except (ValueError, IndexError, MessageError) as error:  # IndexError: of Python itself, for a@
        raise _no_address(text) from error


def _no_address(text: str) -> ValueError:
    return ValueError(f"{text!r} is no mail address such as poststelle@beispiel.example")
