"""A program that signs with a card, for whoever looks into its memory: ``watched_program.py URI PIN-SOURCE``.

It stops twice, prints what it has done, and waits for a line on standard input: when the VERIFY was answered and
nobody has wiped the PIN yet, and when it has signed and closed the card. It itself never has the PIN, but for the
source ``function:PATH``, a function of a careless programmer: bytes, and they are kept; and for
``bytearray:PATH``, one of a careful programmer: read into a bytearray, which is handed over.
"""

import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from demail_hw import open_provider
from demail_hw.iso7816.trace import TraceEntry

_VERIFY = "00200000"
_HEADER_DIGITS = 10


def _stop(where: str) -> None:
    sys.stdout.write(" ".join([where, *(str(id(number)) for number in range(0x30, 0x3A))]) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


class _StopsAtVerify:
    enabled = True

    def trace(self, event: object) -> None:
        if isinstance(event, TraceEntry) and _carries_a_pin(event.command):
            _stop("verified")


def _carries_a_pin(command: str) -> bool:
    return command.startswith(_VERIFY) and len(command) > _HEADER_DIGITS


def _careless(path: str) -> Callable[[], bytes]:
    kept = Path(path).read_bytes()
    return lambda: kept


def _careful(path: str) -> Callable[[], bytearray]:
    def read() -> bytearray:
        secret = bytearray(Path(path).stat().st_size)
        with Path(path).open("rb", buffering=0) as file:
            file.readinto(secret)
        return secret

    return read


_FUNCTIONS = {"function": _careless, "bytearray": _careful}


def main(address: str, source: str) -> None:
    # Everything that is logged stays here, in memory, for whoever looks there.
    log = io.StringIO()
    logging.basicConfig(level=logging.DEBUG, stream=log)
    kind, _, path = source.partition(":")
    pin = _FUNCTIONS[kind](path) if kind in _FUNCTIONS else source
    with open_provider(address, pin, tracer=_StopsAtVerify()) as provider:
        key = provider.identity("signature").private_key
        assert isinstance(key, rsa.RSAPrivateKey)
        key.sign(b"De-Mail", padding.PKCS1v15(), SHA256())
    assert "0020" in log.getvalue()
    _stop("signed")


if __name__ == "__main__":
    main(*sys.argv[1:])
