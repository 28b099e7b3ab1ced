"""What ``sign`` writes, read again with other eyes: asn1crypto, Python's email package, the public key."""

import base64
import dataclasses
import datetime
import email
import email.policy
import hashlib
import pathlib
from email.message import Message

import pytest
from asn1crypto import cms
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw.cms import SignedForm, sign
from demail_hw.cms.mime import canonical
from demail_hw.cms.smime import signable
from demail_hw.errors import DeviceLost
from demail_hw.identity import Identity

MESSAGES = sorted(path for path in (pathlib.Path(__file__).parent / "messages").iterdir() if path.name[0] != ".")
MAIL = (MESSAGES[0].parent / "attachment.eml").read_bytes()
MOMENT = datetime.datetime(2026, 11, 24, 9, 0, 0, 999999, datetime.timezone(datetime.timedelta(hours=1)))


def stem(path: pathlib.Path) -> str:
    return path.stem


def signed_data(der: bytes) -> cms.SignedData:
    info = cms.ContentInfo.load(der, strict=True)
    assert info["content_type"].native == "signed_data"
    assert info.dump(force=True) == der
    return info["content"]


def attributes(signer: cms.SignerInfo) -> dict[str, object]:
    return {one["type"].native: one["values"][0].native for one in signer["signed_attrs"]}


def check(der: bytes, content: bytes, identity: Identity, algorithm: hashes.HashAlgorithm) -> None:
    """RFC 5652, 5.4 and 5.6, done by hand."""
    (signer,) = signed_data(der)["signer_infos"]
    assert attributes(signer)["message_digest"] == hashlib.new(algorithm.name, content).digest()
    key = identity.certificate.public_key()
    assert isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey))
    scheme = (padding.PKCS1v15(), algorithm) if isinstance(key, rsa.RSAPublicKey) else (ec.ECDSA(algorithm),)
    key.verify(signer["signature"].native, signer["signed_attrs"].untag().dump(), *scheme)


def parts(message: bytes) -> tuple[Message, bytes, bytes]:
    """The multipart, its first part as octets, the signature."""
    parsed = email.message_from_bytes(message)
    boundary = parsed.get_boundary()
    assert boundary is not None
    inside = message.split(b"\r\n--" + boundary.encode())
    signature = parsed.get_payload(1)
    assert isinstance(signature, Message)
    assert inside[1].startswith(b"\r\n")
    assert inside[3:] == [b"--\r\n"]
    decoded = signature.get_payload(decode=True)
    assert isinstance(decoded, bytes)
    return parsed, inside[1][2:], decoded


@pytest.mark.parametrize("path", MESSAGES, ids=stem)
def test_multipart_signed(path: pathlib.Path, identity: Identity) -> None:
    message = path.read_bytes()
    parsed, entity, signature = parts(sign(message, identity))
    assert parsed.get_content_type() == "multipart/signed"
    assert parsed.get_param("protocol") == "application/pkcs7-signature"
    assert parsed.get_param("micalg") == "sha-256"
    assert parsed.get_all("MIME-Version") == ["1.0"]
    assert not parsed.defects
    assert entity == signable(message).entity
    assert signed_data(signature)["encap_content_info"]["content"].native is None
    check(signature, entity, identity, hashes.SHA256())


def test_the_signature_part_is_what_mail_clients_expect(identity: Identity) -> None:
    part = email.message_from_bytes(sign(MAIL, identity)).get_payload(1)
    assert isinstance(part, Message)
    assert part.get_content_type() == "application/pkcs7-signature"
    assert part.get_filename() == "smime.p7s"
    assert part["Content-Transfer-Encoding"] == "base64"


@pytest.mark.parametrize("path", MESSAGES, ids=stem)
def test_opaque(path: pathlib.Path, identity: Identity) -> None:
    message = path.read_bytes()
    parsed = email.message_from_bytes(sign(message, identity, form=SignedForm.OPAQUE))
    assert parsed.get_content_type() == "application/pkcs7-mime"
    assert parsed.get_param("smime-type") == "signed-data"
    assert parsed.get_filename() == "smime.p7m"
    der = parsed.get_payload(decode=True)
    assert isinstance(der, bytes)
    entity = signable(message).entity
    assert signed_data(der)["encap_content_info"]["content"].native == entity
    check(der, entity, identity, hashes.SHA256())


@pytest.mark.parametrize("path", MESSAGES, ids=stem)
def test_der_signs_the_given_octets(path: pathlib.Path, identity: Identity) -> None:
    message = path.read_bytes()
    der = sign(message, identity, form=SignedForm.DER)
    assert signed_data(der)["encap_content_info"]["content"].native == message
    check(der, message, identity, hashes.SHA256())


def test_detached_der(identity: Identity) -> None:
    der = sign(MAIL, identity, form=SignedForm.DER, detached=True)
    assert signed_data(der)["encap_content_info"]["content"].native is None
    check(der, MAIL, identity, hashes.SHA256())


@pytest.mark.parametrize("form", [SignedForm.MULTIPART, SignedForm.OPAQUE], ids=lambda form: form.value)
def test_outer_fields_move_outside_in_their_order(form: SignedForm, identity: Identity) -> None:
    message = (MESSAGES[0].parent / "received.eml").read_bytes()
    signed = sign(message, identity, form=form)
    names = [key for key in email.message_from_bytes(signed) if not key.startswith("Content-")]
    expected = [key for key in email.message_from_bytes(message) if not key.startswith("Content-")]
    expected.remove("MIME-Version")
    assert names == [*expected, "MIME-Version"]
    header = canonical(message).split(b"Content-Language", 1)[0]
    assert signed.startswith(header)


def test_an_8bit_entity_is_announced_outside(identity: Identity) -> None:
    assert email.message_from_bytes(sign("Grüße".encode(), identity))["Content-Transfer-Encoding"] == "8bit"
    assert email.message_from_bytes(sign(b"Hello", identity))["Content-Transfer-Encoding"] is None


@pytest.mark.parametrize(
    ("algorithm", "micalg"),
    [(hashes.SHA256(), "sha-256"), (hashes.SHA384(), "sha-384"), (hashes.SHA512(), "sha-512")],
)
def test_hash_algorithms(algorithm: hashes.HashAlgorithm, micalg: str, identity: Identity) -> None:
    parsed, entity, signature = parts(sign(MAIL, identity, hash_algorithm=algorithm))
    assert parsed.get_param("micalg") == micalg
    data = signed_data(signature)
    assert [one["algorithm"].native for one in data["digest_algorithms"]] == [algorithm.name]
    check(signature, entity, identity, algorithm)


def test_algorithm_identifiers(identity: Identity) -> None:
    """RFC 5754, 2: no parameters for SHA-2. RFC 3370, 3.2: rsaEncryption with NULL."""
    (signer,) = signed_data(sign(MAIL, identity, form=SignedForm.DER))["signer_infos"]
    assert signer["digest_algorithm"].dump() == bytes.fromhex("300b0609608648016503040201")
    assert signer["signature_algorithm"].dump() == bytes.fromhex("300d06092a864886f70d0101010500")


@pytest.mark.parametrize(
    ("algorithm", "identifier"),
    [
        (hashes.SHA256(), "300a06082a8648ce3d040302"),
        (hashes.SHA384(), "300a06082a8648ce3d040303"),
        (hashes.SHA512(), "300a06082a8648ce3d040304"),
    ],
    ids=["sha256", "sha384", "sha512"],
)
def test_an_ec_key(algorithm: hashes.HashAlgorithm, identifier: str, ec_identity: Identity) -> None:
    """RFC 5754, 3.3: the hash is in the identifier, and no parameters."""
    parsed, entity, signature = parts(sign(MAIL, ec_identity, hash_algorithm=algorithm))
    assert parsed.get_param("micalg") == f"sha-{algorithm.digest_size * 8}"
    check(signature, entity, ec_identity, algorithm)
    (signer,) = signed_data(signature)["signer_infos"]
    assert signer["signature_algorithm"].dump().hex() == identifier


def test_signed_attributes(identity: Identity) -> None:
    der = sign(MAIL, identity, form=SignedForm.DER, signing_time=MOMENT)
    (signer,) = signed_data(der)["signer_infos"]
    found = attributes(signer)
    assert found["content_type"] == "data"
    assert found["signing_time"] == datetime.datetime(2026, 11, 24, 8, 0, 0, tzinfo=datetime.UTC)
    assert signer["signed_attrs"][1]["values"][0].name == "utc_time"
    capabilities = found["smime_capabilities"]
    assert isinstance(capabilities, list)
    assert [one["capability_id"] for one in capabilities] == ["aes256_gcm", "aes128_gcm", "aes256_cbc", "aes128_cbc"]
    encodings = [one.dump() for one in signer["signed_attrs"]]
    assert encodings == sorted(encodings), "DER sorts a SET OF (X.690, 11.6)"


@pytest.mark.parametrize(
    ("year", "choice"),
    [(1949, "generalized_time"), (1950, "utc_time"), (2049, "utc_time"), (2050, "generalized_time")],
)
def test_signing_time_by_its_year(year: int, choice: str, identity: Identity) -> None:
    """RFC 5652, 11.3."""
    moment = datetime.datetime(year, 6, 1, tzinfo=datetime.UTC)
    (signer,) = signed_data(sign(b"", identity, form=SignedForm.DER, signing_time=moment))["signer_infos"]
    (time,) = (one["values"][0] for one in signer["signed_attrs"] if one["type"].native == "signing_time")
    assert time.name == choice
    assert time.native == moment


def test_the_signing_time_is_now_by_default(identity: Identity) -> None:
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    (signer,) = signed_data(sign(b"", identity, form=SignedForm.DER))["signer_infos"]
    time = attributes(signer)["signing_time"]
    assert isinstance(time, datetime.datetime)
    assert before <= time <= datetime.datetime.now(datetime.UTC)


def test_the_chain_goes_along_without_its_root(identity: Identity) -> None:
    found = {one.chosen.dump() for one in signed_data(sign(MAIL, identity, form=SignedForm.DER))["certificates"]}
    assert found == {one.public_bytes(Encoding.DER) for one in (identity.certificate, identity.chain[0])}


def test_the_signer_is_named_by_issuer_and_serial_number(identity: Identity) -> None:
    data = signed_data(sign(MAIL, identity, form=SignedForm.DER))
    (signer,) = data["signer_infos"]
    assert data["version"].native == signer["version"].native == "v1"
    assert signer["sid"].chosen["serial_number"].native == identity.certificate.serial_number
    assert signer["sid"].chosen["issuer"].dump() == identity.certificate.issuer.public_bytes()


def test_the_boundary_is_not_in_the_message(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    words = iter(["aa", "bb"])
    monkeypatch.setattr("demail_hw.cms.smime.secrets.token_hex", lambda _: next(words))
    signed = sign(b"A text with ----AA in it", identity)
    assert email.message_from_bytes(signed).get_boundary() == "----BB"


def test_a_large_body(identity: Identity) -> None:
    body = b"".join(b"%064d\n" % number for number in range(5 * 1024 * 1024 // 65))
    _, entity, signature = parts(sign(b"Content-Type: text/plain\n\n" + body, identity))
    assert entity == b"Content-Type: text/plain\r\n\r\n" + canonical(body)
    check(signature, entity, identity, hashes.SHA256())


def test_a_changed_message_does_not_verify(identity: Identity) -> None:
    """The check of these tests can fail."""
    der = sign(MAIL, identity, form=SignedForm.DER)
    with pytest.raises(AssertionError):
        check(der, MAIL + b"x", identity, hashes.SHA256())
    broken = der[:-1] + bytes([der[-1] ^ 1])
    with pytest.raises(InvalidSignature):
        check(broken, MAIL, identity, hashes.SHA256())


def test_signing_again_keeps_the_first_signature(identity: Identity) -> None:
    once = sign(MAIL, identity)
    _, entity, _ = parts(sign(once, identity, form=SignedForm.MULTIPART))
    _, inner, signature = parts(entity)
    assert base64.b64encode(signature)
    check(signature, inner, identity, hashes.SHA256())


def test_refusals(identity: Identity) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        sign(MAIL, identity, hash_algorithm=hashes.SHA1())
    with pytest.raises(ValueError, match="opaque"):
        sign(MAIL, identity, form=SignedForm.OPAQUE, detached=True)
    with pytest.raises(ValueError, match="time zone"):
        sign(MAIL, identity, signing_time=datetime.datetime(2026, 1, 1))


def test_a_binary_message_travels_opaque_only(identity: Identity) -> None:
    message = b"Content-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\n\r\0"
    with pytest.raises(ValueError, match="OPAQUE"):
        sign(message, identity)
    der = email.message_from_bytes(sign(message, identity, form=SignedForm.OPAQUE)).get_payload(decode=True)
    assert isinstance(der, bytes)
    assert signed_data(der)["encap_content_info"]["content"].native == message


def test_an_error_of_the_key_passes_through(identity: Identity, broken_key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(DeviceLost, match="unplugged"):
        sign(MAIL, dataclasses.replace(identity, private_key=broken_key))
