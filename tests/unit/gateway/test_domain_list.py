"""The gateway's answer: what is taken, and what is not."""

import json

import pytest

from demail_hw.errors import ProtocolViolation
from demail_hw.gateway.domains import DomainList


def body(owner: object = "Beispiel GmbH", domains: object = ("beispiel.de-mail.de",)) -> bytes:
    return json.dumps({"owner": owner, "domains": domains}).encode()


def test_owner_and_domains_are_read() -> None:
    assert DomainList.decode(body(owner="Müller & Söhne", domains=["a.de-mail.de", "b-2.example"])) == DomainList(
        "Müller & Söhne", ("a.de-mail.de", "b-2.example")
    )
    assert DomainList.decode(body(domains=[])).domains == ()
    assert DomainList.decode(b'{"owner": "x", "domains": [], "more": 1}').owner == "x"


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nope", b"9" * 5000])
def test_what_is_not_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        DomainList.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"null",
        b"{}",
        body(owner=3),
        body(owner=None),
        body(owner="line\nbreak"),
        body(owner="\x1b[31mred"),
        body(domains="beispiel.de-mail.de"),
        body(domains=3),
        body(domains=[3]),
        body(domains=["nodots"]),
        body(domains=["-a.example"]),
        body(domains=["a..example"]),
        body(domains=["a.example\n"]),
        body(domains=["ä.example"]),
        body(domains=["a" * 64 + ".example"]),
        body(domains=[".".join(["a" * 60] * 5)]),
    ],
)
def test_what_says_something_else_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        DomainList.decode(data)
