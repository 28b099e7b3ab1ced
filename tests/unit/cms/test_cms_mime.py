"""MIME entities as octets (RFC 2045), and what of a message is signed (RFC 8551, 3.1)."""

import base64
import email
import pathlib

import pytest

from demail_hw.cms.mime import Entity, base64_lines, canonical
from demail_hw.cms.smime import signable

MESSAGES = sorted(path for path in (pathlib.Path(__file__).parent / "messages").iterdir() if path.name[0] != ".")
MAILS = [path for path in MESSAGES if path.suffix == ".eml"]


def stem(path: pathlib.Path) -> str:
    return path.stem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", b""),
        (b"a\nb", b"a\r\nb"),
        (b"a\rb\r", b"a\r\nb\r\n"),
        (b"a\r\n\r\nb", b"a\r\n\r\nb"),
        (b"a\r\r\nb\n\r", b"a\r\n\r\nb\r\n\r\n"),
    ],
)
def test_canonical_line_ends(text: bytes, expected: bytes) -> None:
    assert canonical(text) == expected
    assert canonical(expected) == expected


def test_base64_has_lines_of_76() -> None:
    text = base64_lines(bytes(range(256)))
    assert max(map(len, text.split(b"\r\n"))) == 76
    assert text.endswith(b"==\r\n")
    assert base64.b64decode(text) == bytes(range(256))
    assert base64_lines(b"") == b""


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\n\n", b"\n\r\n", b"\r\r"])
def test_every_kind_of_blank_line_ends_the_header(blank: bytes) -> None:
    entity = Entity.decode(b"Content-Type: TEXT/Plain; charset=x" + blank + b"body\n\n")
    assert entity is not None
    assert entity.body == b"body\n\n"
    assert entity.token(b"content-type") == b"text/plain"
    assert entity.encode() == b"Content-Type: TEXT/Plain; charset=x\r\n\r\nbody\n\n"


def test_a_crlf_is_no_blank_line() -> None:
    entity = Entity.decode(b"Subject: a\r\nTo: b\r\n\r\nbody")
    assert entity is not None
    assert [field.name for field in entity.fields] == [b"subject", b"to"]


def test_folded_fields_stay_together() -> None:
    entity = Entity.decode(b"Subject: a\n b\n\tc\nContent-Type : text/html\n\n")
    assert entity is not None
    assert [field.encoding for field in entity.fields] == [
        b"Subject: a\r\n b\r\n\tc\r\n",
        b"Content-Type : text/html\r\n",
    ]
    assert entity.token(b"content-type") == b"text/html"
    assert entity.token(b"content-id") == b""


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n\n",
        b"Just a text.\n",
        b"Note: a text\n\nmore",
        b"Subject: x\nno field\n\n",
        b" Subject: x\n\n",
        b"\nSubject: x\n\n",
        b": x\n\n",
    ],
)
def test_a_text_has_no_header(text: bytes) -> None:
    assert Entity.decode(text) is None


@pytest.mark.parametrize("path", MAILS, ids=stem)
def test_transport_fields_stay_outside(path: pathlib.Path) -> None:
    message = path.read_bytes()
    outside = {field.name for field in signable(message).transport}
    inside = {key.lower() for key in email.message_from_bytes(signable(message).entity)}
    everything = {key.lower() for key in email.message_from_bytes(message)}
    assert {key for key in inside if not key.startswith("content-")} <= ({"mime-version"} if not outside else set())
    assert {one.decode() for one in outside} | inside | {"mime-version"} >= everything


@pytest.mark.parametrize("path", MAILS, ids=stem)
def test_the_body_survives_byte_for_byte(path: pathlib.Path) -> None:
    """The line ends apart, which become CR LF."""
    message = path.read_bytes()
    if path.stem == "header-only":
        assert signable(message).entity == b"Content-Type: text/plain\r\n\r\n"
        return
    body = canonical(message).split(b"\r\n\r\n", 1)[1]
    assert signable(message).entity.split(b"\r\n\r\n", 1)[1] == body


@pytest.mark.parametrize("path", MESSAGES, ids=stem)
def test_what_is_signed_has_only_canonical_line_ends(path: pathlib.Path) -> None:
    entity = signable(path.read_bytes()).entity
    assert canonical(entity) == entity
    assert b"\r\n\r\n" in entity


@pytest.mark.parametrize("name", ["entity.eml", "entity-mime-version.eml"])
def test_a_bare_entity_is_signed_whole(name: str) -> None:
    message = (MESSAGES[0].parent / name).read_bytes()
    assert signable(message).entity == canonical(message)
    assert signable(message).transport == ()


def test_a_signed_entity_is_signed_again_unchanged() -> None:
    """What is canonical already does not change."""
    entity = signable((MESSAGES[0].parent / "nested-message.eml").read_bytes()).entity
    assert signable(entity).entity == entity


@pytest.mark.parametrize(
    ("text", "header"),
    [
        (b"", b"text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit"),
        (b"plain\n", b"text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit"),
        ("Grüße\n".encode(), b"text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit"),
        (b"x" * 999, b"text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64"),
        ("Grüße".encode("latin-1"), b"application/octet-stream\r\nContent-Transfer-Encoding: base64"),
        (b"a\0b", b"application/octet-stream\r\nContent-Transfer-Encoding: base64"),
    ],
)
def test_what_is_no_entity_gets_a_header(text: bytes, header: bytes) -> None:
    entity = signable(text).entity
    assert entity.split(b"\r\n\r\n", 1)[0] == b"Content-Type: " + header
    parsed = email.message_from_bytes(entity).get_payload(decode=True)
    assert parsed == (text if b"octet-stream" in header else canonical(text))


def test_a_mail_without_mime_fields_is_a_text() -> None:
    mail = signable("From: a@b.example\nSubject: x\n\nGrüße\n".encode())
    assert mail.entity.startswith(
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr"
    )
    assert b"".join(field.encoding for field in mail.transport) == b"From: a@b.example\r\nSubject: x\r\n"


def test_a_mail_with_an_encoding_but_no_type_keeps_both() -> None:
    """No Content-Type means text/plain (RFC 2045, 5.2); base64 must not be encoded again."""
    mail = signable(b"From: a@b.example\nContent-Transfer-Encoding: base64\n\nR3L8\n")
    assert mail.entity == b"Content-Transfer-Encoding: base64\r\n\r\nR3L8\r\n"


def test_a_binary_body_is_not_touched() -> None:
    mail = signable(b"Content-Type: image/x\nContent-Transfer-Encoding: Binary\n\n\r\n\r\n\n\0")
    assert mail.binary
    assert mail.entity == b"Content-Type: image/x\r\nContent-Transfer-Encoding: Binary\r\n\r\n\r\n\r\n\n\0"
