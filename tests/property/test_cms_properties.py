"""Whatever arrives, ``decrypt`` says it with a typed error; whatever is signed comes out as it went in."""

import email
import pathlib

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demail_hw.cms import SignedForm, decrypt, sign
from demail_hw.cms.ber import Element, decode
from demail_hw.cms.mime import Entity, canonical
from demail_hw.cms.smime import signable
from demail_hw.errors import HardwareError, ProtocolViolation
from demail_hw.identity import Identity, KeyRole

VECTORS = pathlib.Path(__file__).parents[1] / "unit" / "cms" / "vectors"
RECORDED = [
    path.read_bytes() for path in sorted(VECTORS.iterdir()) if path.suffix in {".der", ".ber", ".eml", ".pem"}
]
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def identity() -> Identity:
    key = serialization.load_pem_private_key((VECTORS / "recipient-test-key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    certificate = x509.load_pem_x509_certificate((VECTORS / "recipient.pem").read_bytes())
    return Identity(KeyRole.ENCRYPTION, "test", key, certificate)


def outcome(message: bytes, identity: Identity) -> bytes | HardwareError:
    try:
        return decrypt(message, identity)
    except HardwareError as error:
        return error


def decrypts_or_says_why(message: bytes, identity: Identity) -> None:
    found = outcome(message, identity)
    if isinstance(found, HardwareError):
        assert found.message.isprintable()
        assert len(str(found)) < 2000


@relaxed
@given(message=st.binary(max_size=400))
def test_arbitrary_bytes(message: bytes, identity: Identity) -> None:
    decrypts_or_says_why(message, identity)
    decrypts_or_says_why(b"\x30" + message, identity)
    decrypts_or_says_why(b"Content-Type: application/pkcs7-mime\n\n" + message, identity)


@relaxed
@given(
    recorded=st.sampled_from(RECORDED),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=4),
)
def test_damaged_messages(recorded: bytes, edits: list[tuple[int, int, bytes]], identity: Identity) -> None:
    for at, length, replacement in edits:
        at %= len(recorded)
        recorded = recorded[:at] + replacement + recorded[at + length :]
    decrypts_or_says_why(recorded or b"\x30", identity)


@relaxed
@given(recorded=st.sampled_from(RECORDED), end=st.integers(0, 2000))
def test_cut_messages(recorded: bytes, end: int, identity: Identity) -> None:
    decrypts_or_says_why(recorded[:end], identity)


def definite(content: bytes, tag: int) -> bytes:
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


def encoded(tree: object, *, indefinite: bool) -> bytes:
    """A tree of byte strings in BER."""
    if isinstance(tree, bytes):
        return definite(tree, 0x04)
    assert isinstance(tree, list)
    content = b"".join(encoded(child, indefinite=indefinite) for child in tree)
    return b"\x24\x80" + content + b"\0\0" if indefinite else definite(content, 0x24)


def joined(tree: object) -> bytes:
    return tree if isinstance(tree, bytes) else b"".join(map(joined, tree))  # type: ignore[call-overload]


trees = st.recursive(st.binary(max_size=20), lambda children: st.lists(children, max_size=4), max_leaves=12)


@given(tree=trees, indefinite=st.booleans())
def test_ber_octet_strings_in_any_pieces(tree: object, indefinite: bool) -> None:
    encoding = encoded(tree, indefinite=indefinite)
    element = decode(encoding + b"more")
    assert element.octets() == joined(tree)
    assert bytes(element.encoding) == encoding


@given(data=st.binary(max_size=200))
def test_ber_accepts_or_refuses(data: bytes) -> None:
    try:
        element = decode(data)
    except ProtocolViolation:
        return
    assert data.startswith(bytes(element.encoding))
    for child in element.children:
        assert isinstance(child, Element)
        assert bytes(child.encoding) in bytes(element.content)


@given(text=st.binary(max_size=200))
def test_canonical_text_has_only_crlf(text: bytes) -> None:
    lines = canonical(text)
    assert canonical(lines) == lines
    assert lines.count(b"\r") == lines.count(b"\n") == lines.count(b"\r\n")
    assert lines.replace(b"\r\n", b"") == text.replace(b"\r", b"").replace(b"\n", b"")


names = st.sampled_from([b"Subject", b"From", b"X-Own", b"Content-Language", b"MIME-Version", b"Content-ID"])
values = st.text(st.characters(exclude_characters="\r\n\0", codec="utf-8"), max_size=20).map(str.encode)
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def mails(draw: st.DrawFn) -> bytes:
    lines = [b"%b: %b" % field for field in draw(st.lists(st.tuples(names, values), min_size=1, max_size=5))]
    lines += [b"", *draw(st.lists(values, max_size=5))]
    return b"".join(line + draw(line_ends) for line in lines)


@given(message=st.one_of(mails(), st.binary(max_size=100)))
def test_nothing_of_a_message_is_lost(message: bytes) -> None:
    """Each field is inside or outside, and the body is there."""
    entity = Entity.decode(message)
    split = signable(message)
    if entity is None:
        assert split.transport == ()
        assert email.message_from_bytes(split.entity).get_payload(decode=True) in (message, canonical(message))
        return
    lost = [
        field.name for field in entity.fields if field not in split.transport and field.encoding not in split.entity
    ]
    assert set(lost) <= {b"mime-version"}
    if b"charset=utf-8" not in split.entity and b"octet-stream" not in split.entity:
        assert split.entity.endswith(b"\r\n\r\n" + canonical(entity.body))


@relaxed
@given(message=st.one_of(mails(), st.binary(max_size=100)))
def test_signed_content_is_what_was_to_be_signed(message: bytes, identity: Identity) -> None:
    info = cms.ContentInfo.load(sign(message, identity, form=SignedForm.DER))
    assert info["content"]["encap_content_info"]["content"].native == message
    opaque = email.message_from_bytes(
        sign(message, identity, form=SignedForm.OPAQUE).split(b"MIME-Version: 1.0\r\n")[-1]
    )
    der = opaque.get_payload(decode=True)
    assert isinstance(der, bytes)
    content = cms.ContentInfo.load(der)["content"]["encap_content_info"]["content"].native
    assert content == signable(message).entity
