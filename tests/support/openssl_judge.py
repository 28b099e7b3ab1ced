"""OpenSSL judges what OpenSC did with a card's key."""

import subprocess
from typing import Final

from opensc import OpenSc

__all__ = ["DATA", "OpenSsl"]

DATA: Final = b"De-Mail"
"""What is signed and encrypted."""


class OpenSsl:
    """Verifies and encrypts with the public key of a certificate that OpenSC read from the card."""

    def __init__(self, program: str, opensc: OpenSc) -> None:
        self._program = program
        self._opensc = opensc

    def run(self, *arguments: str) -> bytes:
        ended = subprocess.run([self._program, *arguments], capture_output=True, check=False, timeout=20)
        assert ended.returncode == 0, (arguments, ended.stdout, ended.stderr)
        return ended.stdout

    def public_key(self, identifier: str) -> str:
        certificate = self._opensc.file("certificate.pem")
        self._opensc.good("pkcs15-tool", "--read-certificate", identifier, "--output", certificate)
        key = self._opensc.file("key.pem")
        self.run("x509", "-in", certificate, "-pubkey", "-noout", "-out", key)
        return key

    def verify(self, identifier: str, signature: str, digest: str, *options: str) -> None:
        key = self.public_key(identifier)
        data = self._opensc.file("data", DATA)
        arguments = ("dgst", f"-{digest}", "-verify", key, "-signature", signature, *options, data)
        assert self.run(*arguments) == b"Verified OK\n"

    def encrypt(self, identifier: str, *options: str) -> str:
        encrypted = self._opensc.file("encrypted")
        clear = self._opensc.file("clear", DATA)
        key = self.public_key(identifier)
        self.run("pkeyutl", "-encrypt", "-pubin", "-inkey", key, "-in", clear, "-out", encrypted, *options)
        return encrypted
