"""``decrypt`` on recorded messages, on broken ones, and against the one who asks a million times."""

import base64
import dataclasses
import pathlib
from collections.abc import Callable

import pytest
from asn1crypto import cms, core
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from demail_hw.cms import decrypt
from demail_hw.errors import (
    AlgorithmNotSupported,
    CardRemoved,
    CertificateError,
    DecryptionFailed,
    HardwareError,
    Layer,
    Outcome,
    ProtocolViolation,
    WrongRecipient,
)
from demail_hw.identity import Identity

VECTORS = pathlib.Path(__file__).parent / "vectors"
CONTENT = (VECTORS / "content.eml").read_bytes()
OPENABLE = [
    *("des3.eml", "aes128.eml", "aes192.pem", "aes256.der", "smime.eml"),
    *("aes128-gcm.eml", "aes192-gcm.der", "aes256-gcm.der"),
    *("oaep-sha1.der", "oaep-sha256.der", "oaep-label.der"),
    *("keyid.der", "two-recipients.der", "indefinite.der", "gpgsm.pem", "gpgsm-des3.ber"),
]


def vector(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def with_key(identity: Identity, key: rsa.RSAPrivateKey) -> Identity:
    return dataclasses.replace(identity, private_key=key)


def enveloped(name: str) -> cms.ContentInfo:
    return cms.ContentInfo.load(vector(name))


def tlv(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


def oid(dotted: str) -> bytes:
    return bytes(core.ObjectIdentifier(dotted).dump())


def edited(info: cms.ContentInfo) -> bytes:
    return bytes(info.dump(force=True))


def raises(message: bytes, identity: Identity) -> HardwareError:
    with pytest.raises(HardwareError) as caught:
        decrypt(message, identity)
    return caught.value


def refuse(_: bytes) -> bytes:
    raise ValueError("Decryption failed")


def times_asked(key: rsa.RSAPrivateKey) -> int:
    return int(vars(key)["asked"])


@pytest.mark.parametrize("name", OPENABLE)
def test_recorded_messages(name: str, recipient: Identity) -> None:
    assert decrypt(vector(name), recipient) == CONTENT


# --- What it arrives in ----------------------------------------------------------------------------------------

DER = vector("aes256-gcm.der")
BASE64 = base64.encodebytes(DER)


@pytest.mark.parametrize(
    "message",
    [
        b"Content-Type: application/pkcs7-mime\n\n" + BASE64,
        b"From: a@b\r\nContent-Type: application/x-pkcs7-mime; name=x\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + BASE64,
        b"Content-Type: APPLICATION/PKCS7-MIME;\n smime-type=authEnveloped-data\n\n" + BASE64,
        b"Content-Type: application/octet-stream; name=smime.p7m\n\n" + BASE64 + b"\n-- \nList footer.\n",
        b"Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: binary\n\n" + DER + b"\r\n",
        b"Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: quoted-printable\n\n"
        + b"".join(b"=%02X" % octet for octet in DER),
        b"\n-----BEGIN CMS-----\n" + BASE64 + b"-----END CMS-----\n",
        b"-----BEGIN PKCS7-----\r\n" + BASE64.replace(b"\n", b"\r\n") + b"-----END PKCS7-----",
        DER + b"\n",
    ],
)
def test_what_it_arrives_in(message: bytes, recipient: Identity) -> None:
    assert decrypt(message, recipient) == CONTENT


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "neither S/MIME nor PEM"),
        (b"Hello", "neither S/MIME nor PEM"),
        (CONTENT, "text/plain"),
        (b"From: a@b\n\nHello", "no Content-Type"),
        (b"Content-Type: multipart/signed\n\n", "multipart/signed"),
        (b"Content-Type: \x1b[31m\n\n", r"\\x1b"),
        (b"Content-Type: application/pkcs7-mime\n\nA===", "base64"),
        (b"-----BEGIN CMS-----\nA\n-----END CMS-----", "base64"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "neither"),
        (b"Content-Type: application/pkcs7-mime\n\n", "ends inside"),
        (DER[:-1], "ends before"),
        (vector("signed.der"), "signed-data"),
    ],
)
def test_what_is_no_encrypted_message(message: bytes, words: str, recipient: Identity) -> None:
    with pytest.raises(ProtocolViolation, match=words) as caught:
        decrypt(message, recipient)
    assert caught.value.layer is Layer.KEYS
    assert caught.value.remedy
    assert caught.value.outcome is Outcome.NOT_SENT


# --- Whom it is for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("other-recipient.der", "serial number [0-9A-F]+ of Common Name: Somebody else, Organization: Amt Düren"),
        ("other-recipient-keyid.der", "key identifier [0-9A-F]{40}[.]"),
        ("kek-recipient.der", "1 that have no RSA key"),
    ],
)
def test_a_message_for_others(name: str, words: str, recipient: Identity) -> None:
    with pytest.raises(WrongRecipient, match=words):
        decrypt(vector(name), recipient)


def test_only_some_of_many_recipients_are_named(recipient: Identity) -> None:
    info = enveloped("other-recipient.der")
    (one,) = info["content"]["recipient_infos"]
    many = []
    for serial in range(9):
        other = one.copy()
        other.chosen["rid"].chosen["serial_number"] = serial
        many.append(other)
    info["content"]["recipient_infos"] = many
    _, text = str(raises(edited(info), recipient)).split(", but for ")
    assert text.count("serial number") == 3
    assert "; 6 more" in text


def test_an_error_names_our_certificate_as_card_info_does(recipient: Identity) -> None:
    with pytest.raises(WrongRecipient) as caught:
        decrypt(vector("other-recipient.der"), recipient)
    assert f"(serial number {recipient.certificate.serial_number:X})" in caught.value.message


def test_an_issuer_written_with_other_string_types_is_the_same(recipient: Identity) -> None:
    """RFC 5280, 7.1: neither string type nor case nor inner spaces matter."""
    info = enveloped("aes256-gcm.der")
    (one,) = info["content"]["recipient_infos"]
    issuer = one.chosen["rid"].chosen["issuer"]
    native = {key: str(value).upper().replace(" ", "  ") for key, value in issuer.native.items()}
    one.chosen["rid"].chosen["issuer"] = type(issuer).build(native)
    assert edited(info) != DER
    assert decrypt(edited(info), recipient) == CONTENT


def test_control_characters_of_an_issuer_stay_out_of_the_error(recipient: Identity) -> None:
    info = enveloped("other-recipient.der")
    (one,) = info["content"]["recipient_infos"]
    one.chosen["rid"].chosen["issuer"] = type(one.chosen["rid"].chosen["issuer"]).build(
        {"common_name": "evil\n\x1b[31m" + "x" * 500}
    )
    text = raises(edited(info), recipient).message
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 400


@pytest.mark.parametrize(
    "name",
    [
        tlv(0x30, b"\x31\x01\x00"),
        tlv(0x30, tlv(0x31, tlv(0x30, b"\x06\x01\x80"))),
        tlv(0x30, tlv(0x31, tlv(0x30, tlv(0x06, b"\x81" * 3000 + b"\x01"), b"\x0c\x01x"))),
        tlv(0x30, tlv(0x31, tlv(0x30, tlv(0x06, b"\x81" * 9000 + b"\x01"), b"\x0c\x01x"))),
        tlv(0x30, tlv(0x31, tlv(0x30, b"\x06\x03\x55\x04\x03\x0c\x01\xff"))),
        tlv(0x30, tlv(0x31, tlv(0x30, b"\x06\x03\x55\x04\x06\x0c\x01\xff")) * 3),
    ],
)
def test_a_broken_issuer_is_for_somebody_else(name: bytes, recipient: Identity) -> None:
    """Even with our serial number, so that the names are compared."""
    info = enveloped("aes256.der")["content"]
    (one,) = info["recipient_infos"]
    serial = one.chosen["rid"].chosen["serial_number"].dump()
    wrapped = one.chosen["key_encryption_algorithm"].dump() + one.chosen["encrypted_key"].dump()
    transport = tlv(0x30, b"\x02\x01\x00", tlv(0x30, name, serial), wrapped)
    body = tlv(0x30, b"\x02\x01\x00", tlv(0x31, transport), info["encrypted_content_info"].dump())
    message = tlv(0x30, oid("1.2.840.113549.1.7.3"), tlv(0xA0, body))
    with pytest.raises((WrongRecipient, ProtocolViolation)):
        decrypt(message, recipient)


def test_a_certificate_without_a_key_identifier_is_found_by_its_key(recipient: Identity, identity: Identity) -> None:
    """RFC 5280, 4.2.1.2, method 1."""
    digest = x509.SubjectKeyIdentifier.from_public_key(identity.certificate.public_key()).digest
    key = identity.certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    info = enveloped("keyid.der")
    (one,) = info["content"]["recipient_infos"]
    content_key = recipient_content_key("keyid.der", recipient)
    one.chosen["rid"] = cms.RecipientIdentifier("subject_key_identifier", core.OctetString(digest))
    one.chosen["encrypted_key"] = key.encrypt(content_key, padding.PKCS1v15())
    assert decrypt(edited(info), identity) == CONTENT


def recipient_content_key(name: str, recipient: Identity) -> bytes:
    (one,) = enveloped(name)["content"]["recipient_infos"]
    assert isinstance(recipient.private_key, rsa.RSAPrivateKey)
    return recipient.private_key.decrypt(one.chosen["encrypted_key"].native, padding.PKCS1v15())


def test_a_certificate_with_broken_extensions(recipient: Identity, broken_certificate: x509.Certificate) -> None:
    broken = dataclasses.replace(recipient, certificate=broken_certificate)
    with pytest.raises(CertificateError):
        decrypt(vector("keyid.der"), broken)
    with pytest.raises(WrongRecipient):
        decrypt(DER, broken)


# --- Algorithms ------------------------------------------------------------------------------------------------


def test_an_unknown_content_cipher_is_named(recipient: Identity) -> None:
    error = raises(vector("rc2.der"), recipient)
    assert isinstance(error, AlgorithmNotSupported)
    assert "1.2.840.113549.3.2" in error.message


MD5 = tlv(0x30, oid("1.2.840.113549.2.5"))
MGF1 = oid("1.2.840.113549.1.1.8")


@pytest.mark.parametrize(
    ("parameters", "kind", "words"),
    [
        (tlv(0xA0, MD5), AlgorithmNotSupported, "hash 1.2.840.113549.2.5"),
        (tlv(0xA1, tlv(0x30, MGF1, MD5)), AlgorithmNotSupported, "hash 1.2.840.113549.2.5"),
        (tlv(0xA1, tlv(0x30, oid("1.2.3.4"), MD5)), AlgorithmNotSupported, "function 1.2.3.4"),
        (tlv(0xA1, tlv(0x30, MGF1)), ProtocolViolation, "no hash for MGF1"),
        (tlv(0xA2, tlv(0x30, oid("1.2.3.4"))), AlgorithmNotSupported, "label source 1.2.3.4"),
        (tlv(0xA2, tlv(0x30, oid("1.2.840.113549.1.1.9"))), ProtocolViolation, "not an octet string"),
        (tlv(0xA2, tlv(0x30, oid("1.2.840.113549.1.1.9"), b"\x05\x00")), ProtocolViolation, "not an octet string"),
    ],
)
def test_unknown_parts_of_oaep(
    parameters: bytes,
    kind: type[HardwareError],
    words: str,
    recipient: Identity,
    scripted_key: Callable[..., rsa.RSAPrivateKey],
) -> None:
    info = enveloped("aes256.der")["content"]
    (one,) = info["recipient_infos"]
    wrapping = tlv(0x30, oid("1.2.840.113549.1.1.7"), tlv(0x30, parameters))
    rid, key = one.chosen["rid"].dump(), one.chosen["encrypted_key"].dump()
    transport = tlv(0x30, b"\x02\x01\x00", rid, wrapping, key)
    body = tlv(0x30, b"\x02\x01\x00", tlv(0x31, transport), info["encrypted_content_info"].dump())
    unasked = scripted_key(refuse)
    with pytest.raises(kind, match=words):
        decrypt(tlv(0x30, oid("1.2.840.113549.1.7.3"), tlv(0xA0, body)), with_key(recipient, unasked))
    assert times_asked(unasked) == 0


def test_oaep_without_parameters_has_its_defaults(recipient: Identity) -> None:
    """RFC 4055, 4.1: SHA-1 everywhere."""
    der = vector("oaep-sha1.der")
    written = bytes.fromhex("300d06092a864886f70d0101073000")
    assert written in der
    info = cms.ContentInfo.load(der)
    (one,) = info["content"]["recipient_infos"]
    one.chosen["key_encryption_algorithm"] = cms.KeyEncryptionAlgorithm.load(b"\x30\x0b" + written[2:-2])
    assert written not in edited(info)
    assert decrypt(edited(info), recipient) == CONTENT


@pytest.mark.parametrize("algorithm", ["aes256_wrap", "1.2.3.4"])
def test_a_key_wrapped_without_rsa(algorithm: str, recipient: Identity) -> None:
    info = enveloped("aes256.der")
    (one,) = info["content"]["recipient_infos"]
    one.chosen["key_encryption_algorithm"] = cms.KeyEncryptionAlgorithm({"algorithm": algorithm})
    with pytest.raises(AlgorithmNotSupported, match="not RSA"):
        decrypt(edited(info), recipient)


VECTOR = b"\x04\x10" + bytes(16)
NONCE = b"\x04\x0c" + bytes(12)
MAC = b"\x04\x10" + bytes(16)


@pytest.mark.parametrize(
    ("arc", "parameters", "mac"),
    [
        (42, b"", b""),
        (42, b"\x05\x00", b""),
        (42, b"\x04\x0f" + bytes(15), b""),
        (42, VECTOR, MAC),
        (46, b"", MAC),
        (46, b"\x05\x00", MAC),
        (46, VECTOR, MAC),
        (46, tlv(0x30, NONCE), MAC),  # the tag has 12 octets if nothing is said
        (46, tlv(0x30, NONCE, b"\x02\x01\x0f"), MAC),
        (46, tlv(0x30, NONCE, b"\x02\x01\x04"), b"\x04\x04" + bytes(4)),
        (46, tlv(0x30, NONCE, b"\x02\x01\xff"), b"\x04\x00"),
        (46, tlv(0x30, b"\x04\x07" + bytes(7), b"\x02\x01\x10"), MAC),
        (46, tlv(0x30, NONCE, b"\x02\x01\x10"), b""),
    ],
)
def test_wrong_parameters_of_the_content_cipher(
    arc: int,
    parameters: bytes,
    mac: bytes,
    recipient: Identity,
    scripted_key: Callable[..., rsa.RSAPrivateKey],
) -> None:
    """Found before the key is asked."""
    (one,) = enveloped("aes256.der")["content"]["recipient_infos"]
    cipher = tlv(0x30, oid(f"2.16.840.1.101.3.4.1.{arc}"), parameters)
    content = tlv(0x30, oid("1.2.840.113549.1.7.1"), cipher, tlv(0x80, bytes(16)))
    body = tlv(0x30, b"\x02\x01\x00", tlv(0x31, one.dump()), content, mac)
    content_type = "1.2.840.113549.1.9.16.1.23" if mac else "1.2.840.113549.1.7.3"
    message = tlv(0x30, oid(content_type), tlv(0xA0, body))
    key = scripted_key(refuse)
    with pytest.raises(ProtocolViolation, match=r"parameters|initialisation|sequence"):
        decrypt(message, with_key(recipient, key))
    assert times_asked(key) == 0


@pytest.mark.parametrize(
    ("name", "foreign"), [("aes256.der", "2.16.840.1.101.3.4.1.46"), ("aes256-gcm.der", "2.16.840.1.101.3.4.1.42")]
)
def test_cbc_and_gcm_each_in_its_own_structure(name: str, foreign: str, recipient: Identity) -> None:
    own = enveloped(name)["content"]
    field = "auth_encrypted_content_info" if name.endswith("gcm.der") else "encrypted_content_info"
    named = own[field]["content_encryption_algorithm"]["algorithm"].dump()
    message = vector(name).replace(named, oid(foreign))
    assert isinstance(raises(message, recipient), ProtocolViolation)


def test_authenticated_attributes_are_authenticated(recipient: Identity) -> None:
    """RFC 5083, 2.2: their DER with the tag of SET OF."""
    key = recipient.certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    content_key, nonce = bytes(range(16)), bytes(12)
    attributes = cms.CMSAttributes([cms.CMSAttribute({"type": "content_type", "values": ["data"]})])
    sealed = AESGCM(content_key).encrypt(nonce, CONTENT, attributes.dump())
    info = enveloped("aes256-gcm.der")
    content = info["content"]
    (one,) = content["recipient_infos"]
    one.chosen["encrypted_key"] = key.encrypt(content_key, padding.PKCS1v15())
    algorithm = content["auth_encrypted_content_info"]["content_encryption_algorithm"]
    parameters = b"\x30\x11\x04\x0c" + nonce + b"\x02\x01\x10"
    gcm = oid("2.16.840.1.101.3.4.1.6")
    content["auth_encrypted_content_info"]["content_encryption_algorithm"] = type(algorithm).load(
        b"\x30" + bytes([len(gcm + parameters)]) + gcm + parameters
    )
    content["auth_encrypted_content_info"]["encrypted_content"] = sealed[:-16]
    content["auth_attrs"] = attributes
    content["mac"] = sealed[-16:]
    assert decrypt(edited(info), recipient) == CONTENT
    content["auth_attrs"] = cms.CMSAttributes([cms.CMSAttribute({"type": "content_type", "values": ["signed_data"]})])
    assert isinstance(raises(edited(info), recipient), DecryptionFailed)


def test_an_ec_key_cannot_decrypt(ec_identity: Identity) -> None:
    with pytest.raises(AlgorithmNotSupported, match="RSA keys only") as caught:
        decrypt(DER, ec_identity)
    assert "RSA encryption key" in caught.value.remedy


# --- Damage, and who learns from it ----------------------------------------------------------------------------


@pytest.mark.parametrize("at", [-1, -20, -40])
def test_gcm_finds_a_changed_bit(at: int, recipient: Identity) -> None:
    """In the tag, and in the content."""
    message = bytearray(DER)
    message[at] ^= 1
    assert isinstance(raises(bytes(message), recipient), DecryptionFailed)


@pytest.mark.parametrize("name", ["aes256-gcm.der", "aes256.der", "des3.eml", "oaep-sha256.der"])
@pytest.mark.parametrize(
    "answer",
    [refuse, lambda _: b"", lambda _: b"k" * 31, lambda _: b"k" * 33, lambda _: b"k" * 256],
    ids=["bad padding", "no key", "short key", "long key", "block"],
)
def test_a_key_that_does_not_unwrap_is_like_a_wrong_key(
    name: str,
    answer: Callable[[bytes], bytes],
    recipient: Identity,
    scripted_key: Callable[..., rsa.RSAPrivateKey],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bleichenbacher: same error, same words, no cause to see, one question to the key."""
    monkeypatch.setattr("demail_hw.cms.key_transport.secrets.token_bytes", lambda size: b"\x01" * size)
    wrong = scripted_key(lambda _: b"\x01" * {"des3.eml": 24, "oaep-sha256.der": 16}.get(name, 32))
    key = scripted_key(answer)
    expected = raises(vector(name), with_key(recipient, wrong))
    error = raises(vector(name), with_key(recipient, key))
    assert type(error) is type(expected) is DecryptionFailed
    assert (str(error), error.outcome) == (str(expected), expected.outcome)
    assert error.__cause__ is expected.__cause__ is None
    assert error.__suppress_context__
    assert times_asked(key) == 1


def test_the_substitute_key_is_random_and_of_the_right_length(
    recipient: Identity, scripted_key: Callable[..., rsa.RSAPrivateKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it were guessable, the attacker would see the difference in the content."""
    drawn: list[int] = []

    def draw(size: int) -> bytes:
        drawn.append(size)
        return recipient_content_key("aes256.der", recipient)

    monkeypatch.setattr("demail_hw.cms.key_transport.secrets.token_bytes", draw)
    assert decrypt(vector("aes256.der"), with_key(recipient, scripted_key(refuse))) == CONTENT
    assert drawn == [32]


@pytest.mark.parametrize("name", ["rc2.der", "other-recipient.der", "signed.der", "kek-recipient.der"])
def test_the_key_is_not_asked_in_vain(
    name: str, recipient: Identity, scripted_key: Callable[..., rsa.RSAPrivateKey]
) -> None:
    key = scripted_key(refuse)
    raises(vector(name), with_key(recipient, key))
    assert times_asked(key) == 0


def test_an_error_of_the_card_passes_through(
    recipient: Identity, scripted_key: Callable[..., rsa.RSAPrivateKey]
) -> None:
    def remove(_: bytes) -> bytes:
        raise CardRemoved("the card was taken out")

    with pytest.raises(CardRemoved, match="taken out") as caught:
        decrypt(DER, with_key(recipient, scripted_key(remove)))
    assert caught.value.outcome is Outcome.UNKNOWN


def test_content_that_is_no_multiple_of_a_block(recipient: Identity) -> None:
    info = enveloped("aes256.der")
    inner = info["content"]["encrypted_content_info"]
    for ciphertext in (b"", inner["encrypted_content"].native[:-1]):
        inner["encrypted_content"] = ciphertext
        assert isinstance(raises(edited(info), recipient), DecryptionFailed)
