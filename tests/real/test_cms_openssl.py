"""OpenSSL's opinion of what we sign, and ours of what it encrypts."""

import email
import pathlib
import re
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from demail_hw.cms import SignedForm, decrypt, sign
from demail_hw.cms.mime import canonical
from demail_hw.cms.smime import signable
from demail_hw.identity import Identity, KeyRole

MESSAGES = sorted(
    path
    for path in (pathlib.Path(__file__).parents[1] / "unit" / "cms" / "messages").iterdir()
    if path.name[0] != "."
)
CONFIGURATION = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[user]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = emailProtection
subjectKeyIdentifier = hash
"""
LARGE = b"".join(
    b"%08d Gr\xc3\xbc\xc3\x9fe aus K\xc3\xb6ln, und das ist noch nicht das Ende.\n" % n for n in range(85_000)
)
"""Five megabytes."""


RSA = ("rsa:2048",)
CURVES = ("prime256v1", "brainpoolP256r1")


class Openssl(NamedTuple):
    """The program, in a directory of its own."""

    program: str
    directory: pathlib.Path

    def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self.program, *arguments], input=stdin, capture_output=True, cwd=self.directory, timeout=60, check=False
        )

    def need(self, *arguments: str, stdin: bytes = b"") -> bytes:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def verify(self, signed: bytes, *arguments: str, command: str = "cms") -> subprocess.CompletedProcess[bytes]:
        return self.run(command, "-verify", "-CAfile", "root.pem", *arguments, stdin=signed)

    def certify(
        self, name: str, serial: str, subject: str, issuer: str, extensions: str, *, kind: Sequence[str] = RSA
    ) -> None:
        """A key and its certificate, NAME.key and NAME.pem."""
        request = ["req", "-newkey", *kind, "-nodes", "-config", "openssl.cnf", "-utf8", "-subj", subject]
        signer = (
            ["-signkey", f"{name}.key"] if issuer == name else ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"]
        )
        self.need(*request, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        self.need(
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "30", "-set_serial", serial),
            *("-extfile", "openssl.cnf", "-extensions", extensions, *signer),
        )


@pytest.fixture(scope="module")
def openssl(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Openssl:
    program = Openssl(tool("openssl"), tmp_path_factory.mktemp("cms"))
    (program.directory / "openssl.cnf").write_text(CONFIGURATION)
    program.certify("root", "1", "/C=DE/O=Test/CN=Root", "root", "ca")
    program.certify("middle", "2", "/C=DE/O=Test/CN=Intermediate", "root", "ca")
    program.certify("user", "3", "/C=DE/O=Stadt Köln/CN=Jürgen Groß", "middle", "user")
    program.certify("other", "4", "/C=DE/O=Stadt Köln/CN=Somebody else", "middle", "user")
    return program


@pytest.fixture(scope="module", params=CURVES)
def ec_identity(request: pytest.FixtureRequest, openssl: Openssl) -> Identity:
    kind = ("ec", "-pkeyopt", f"ec_paramgen_curve:{request.param}", "-pkeyopt", "ec_param_enc:named_curve")
    openssl.certify(request.param, "5", f"/C=DE/O=Test/CN={request.param}", "root", "user", kind=kind)
    path = openssl.directory / f"{request.param}.key"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(path.with_suffix(".pem").read_bytes())
    return Identity(KeyRole.SIGNATURE, "test", key, certificate)


@pytest.fixture(scope="module")
def identity(openssl: Openssl) -> Identity:
    def certificate(name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((openssl.directory / f"{name}.pem").read_bytes())

    key = serialization.load_pem_private_key((openssl.directory / "user.key").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    chain = (certificate("middle"), certificate("root"))
    return Identity(KeyRole.SIGNATURE, "test", key, certificate("user"), chain)


def stem(path: pathlib.Path) -> str:
    return path.stem


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# --- Signing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["cms", "smime"])
@pytest.mark.parametrize("path", MESSAGES, ids=stem)
def test_multipart_signed_is_accepted(path: pathlib.Path, command: str, openssl: Openssl, identity: Identity) -> None:
    message = path.read_bytes()
    done = openssl.verify(sign(message, identity), command=command)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == signable(message).entity


@pytest.mark.parametrize("command", ["cms", "smime"])
@pytest.mark.parametrize("path", MESSAGES, ids=stem)
def test_opaque_is_accepted(path: pathlib.Path, command: str, openssl: Openssl, identity: Identity) -> None:
    message = path.read_bytes()
    done = openssl.verify(sign(message, identity, form=SignedForm.OPAQUE), command=command)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == signable(message).entity


@pytest.mark.parametrize("path", MESSAGES, ids=stem)
def test_der_is_accepted(path: pathlib.Path, openssl: Openssl, identity: Identity) -> None:
    message = path.read_bytes()
    done = openssl.verify(sign(message, identity, form=SignedForm.DER), "-inform", "DER")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == message


@pytest.mark.parametrize("path", MESSAGES, ids=stem)
def test_detached_der_is_accepted(path: pathlib.Path, openssl: Openssl, identity: Identity) -> None:
    """``-binary``: the octets of the file, not its lines."""
    signature = sign(path.read_bytes(), identity, form=SignedForm.DER, detached=True)
    done = openssl.verify(signature, "-inform", "DER", "-binary", "-content", str(path))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == path.read_bytes()


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda one: one.name)
def test_every_hash_is_accepted(algorithm: hashes.HashAlgorithm, openssl: Openssl, identity: Identity) -> None:
    signed = sign(b"Hello", identity, hash_algorithm=algorithm)
    assert openssl.verify(signed).returncode == 0
    printed = openssl.need("cms", "-cmsout", "-print", "-noout", stdin=signed)
    assert printed.count(b"algorithm: %b (" % algorithm.name.encode()) == 2


@pytest.mark.parametrize("form", SignedForm, ids=lambda form: form.value)
@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda one: one.name)
def test_ecdsa_is_accepted(
    form: SignedForm, algorithm: hashes.HashAlgorithm, openssl: Openssl, ec_identity: Identity
) -> None:
    signed = sign(MESSAGE, ec_identity, form=form, hash_algorithm=algorithm)
    done = openssl.verify(signed, "-inform", FORMAT[form])
    assert done.returncode == 0, done.stderr.decode()
    printed = openssl.need("cms", "-cmsout", "-print", "-noout", "-inform", FORMAT[form], stdin=signed)
    assert b"algorithm: ecdsa-with-%b (" % algorithm.name.upper().encode() in printed


@pytest.mark.parametrize("form", SignedForm, ids=lambda form: form.value)
def test_five_megabytes(form: SignedForm, openssl: Openssl, identity: Identity) -> None:
    message = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n" + LARGE
    done = openssl.verify(sign(message, identity, form=form), "-inform", "DER" if form is SignedForm.DER else "SMIME")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == (message if form is SignedForm.DER else canonical(message))


def test_a_signed_message_is_signed_again(openssl: Openssl, identity: Identity) -> None:
    """Both signatures hold."""
    once = sign("Grüße".encode(), identity)
    outer = openssl.verify(sign(once, identity))
    assert outer.returncode == 0
    inner = openssl.verify(outer.stdout)
    assert inner.returncode == 0
    assert inner.stdout.endswith("Grüße".encode())


# --- One changed byte ------------------------------------------------------------------------------------------

MESSAGE = (
    "From: a@b.example\nSubject: x\nContent-Type: text/plain; charset=utf-8\n\nEine Nachricht für Köln.\n".encode()
)
FORMAT = {SignedForm.MULTIPART: "SMIME", SignedForm.OPAQUE: "SMIME", SignedForm.DER: "DER"}


def spoiled(signed: bytes, form: SignedForm, old: bytes, new: bytes, openssl: Openssl) -> bytes:
    """The signed message with some octets exchanged, also inside its base64."""
    if form is SignedForm.DER:
        assert signed.count(old) == 1
        return signed.replace(old, new)
    if form is SignedForm.MULTIPART and old in signed:
        return signed.replace(old, new)
    body = re.search(rb"\r\n\r\n((?:[A-Za-z0-9+/=]+\r\n)+)(?:--|$)", signed)
    assert body is not None
    der = openssl.need("base64", "-d", stdin=body[1])
    assert der.count(old) == 1
    again = openssl.need("base64", "-e", stdin=der.replace(old, new)).replace(b"\n", b"\r\n")
    return signed[: body.start(1)] + again + signed[body.end(1) :]


@pytest.mark.parametrize("form", SignedForm, ids=lambda form: form.value)
def test_nothing_spoiled_is_accepted(form: SignedForm, openssl: Openssl, identity: Identity) -> None:
    """The way of the next tests is sound."""
    signed = sign(MESSAGE, identity, form=form)
    same = spoiled(signed, form, b"Nachricht", b"Nachricht", openssl)
    assert openssl.verify(same, "-inform", FORMAT[form]).returncode == 0


@pytest.mark.parametrize("form", SignedForm, ids=lambda form: form.value)
def test_a_changed_byte_of_the_content_is_rejected(form: SignedForm, openssl: Openssl, identity: Identity) -> None:
    signed = sign(MESSAGE, identity, form=form)
    done = openssl.verify(spoiled(signed, form, b"Nachricht", b"Nachrichs", openssl), "-inform", FORMAT[form])
    assert done.returncode != 0
    assert b"erification failure" in done.stderr


@pytest.mark.parametrize("form", SignedForm, ids=lambda form: form.value)
def test_a_changed_byte_of_the_signature_is_rejected(form: SignedForm, openssl: Openssl, identity: Identity) -> None:
    """The signature is the last thing in SignedData: 256 octets."""
    signed = sign(MESSAGE, identity, form=form)
    if form is SignedForm.DER:
        der = signed
    else:
        part = email.message_from_bytes(signed)
        payload = part.get_payload(1) if form is SignedForm.MULTIPART else part
        assert isinstance(payload, email.message.Message)
        decoded = payload.get_payload(decode=True)
        assert isinstance(decoded, bytes)
        der = decoded
    signature = der[-256:]
    done = openssl.verify(spoiled(signed, form, signature, changed(signature, 100), openssl), "-inform", FORMAT[form])
    assert done.returncode != 0
    assert b"erification failure" in done.stderr


def test_another_root_is_rejected(openssl: Openssl, identity: Identity) -> None:
    done = openssl.run("cms", "-verify", "-CAfile", "other.pem", stdin=sign(MESSAGE, identity))
    assert done.returncode != 0
    assert b"unable to get" in done.stderr


# --- Decrypting ------------------------------------------------------------------------------------------------

OAEP = ("-keyopt", "rsa_padding_mode:oaep")
CIPHERS = ("-des3", "-aes128", "-aes192", "-aes256", "-aes-128-gcm", "-aes-192-gcm", "-aes-256-gcm")
WRAPPINGS: dict[str, tuple[str, ...]] = {
    "pkcs1": (),
    "keyid": ("-keyid",),
    "oaep": OAEP,
    "oaep-sha256": (*OAEP, "-keyopt", "rsa_oaep_md:sha256"),
    "oaep-sha512-mgf1-sha384": (*OAEP, "-keyopt", "rsa_oaep_md:sha512", "-keyopt", "rsa_mgf1_md:sha384"),
    "oaep-label": (*OAEP, "-keyopt", "rsa_oaep_label:4b6f656c6e"),
}


def encrypt(openssl: Openssl, content: bytes, *options: str) -> bytes:
    return openssl.need("cms", "-encrypt", "-binary", *options, stdin=content)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("cipher", CIPHERS)
def test_ciphers_and_wrappings(cipher: str, wrapping: str, openssl: Openssl, identity: Identity) -> None:
    message = encrypt(openssl, MESSAGE, cipher, "-recip", "user.pem", *WRAPPINGS[wrapping])
    assert decrypt(message, identity) == MESSAGE


@pytest.mark.parametrize("form", [("SMIME",), ("DER",), ("PEM",), ("DER", "-stream", "-indef"), ("SMIME", "-stream")])
@pytest.mark.parametrize("cipher", ["-aes256", "-aes-256-gcm"])
@pytest.mark.parametrize("content", [b"x", MESSAGE, LARGE], ids=["one", "mail", "five megabytes"])
def test_forms(form: tuple[str, ...], cipher: str, content: bytes, openssl: Openssl, identity: Identity) -> None:
    message = encrypt(openssl, content, cipher, "-recip", "user.pem", "-outform", *form)
    assert decrypt(message, identity) == content


@pytest.mark.parametrize("cipher", CIPHERS)
def test_empty_content(cipher: str, openssl: Openssl, identity: Identity) -> None:
    assert decrypt(encrypt(openssl, b"", cipher, "-recip", "user.pem"), identity) == b""


def test_one_of_many_recipients(openssl: Openssl, identity: Identity) -> None:
    others = ["-recip", "other.pem"] * 5
    assert decrypt(encrypt(openssl, MESSAGE, "-aes256", *others, "-recip", "user.pem"), identity) == MESSAGE


def test_openssl_smime(openssl: Openssl, identity: Identity) -> None:
    message = openssl.need("smime", "-encrypt", "-aes128", "-subject", "Grüße", "user.pem", stdin=MESSAGE)
    assert decrypt(message, identity) == canonical(MESSAGE)


def test_signed_then_encrypted_and_back(openssl: Openssl, identity: Identity) -> None:
    """What a mail client sends."""
    message = encrypt(openssl, sign(MESSAGE, identity), "-aes256", "-recip", "user.pem")
    done = openssl.verify(decrypt(message, identity))
    assert done.returncode == 0
    assert done.stdout == signable(MESSAGE).entity
