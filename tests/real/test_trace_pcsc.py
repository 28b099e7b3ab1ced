"""A card that other programs use beside us, recorded through PC/SC: its epoch changes with every transaction, and so
it does in the replay."""

import pathlib
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from demail_hw import FileTracer, KeyRole, open_provider
from demail_hw.iso7816.trace import Tracer
from demail_hw.traces.files import read_trace
from demail_hw_simulators.card.personalities import netkey3
from pcsc_client import require_pyscard
from pcscd import READERS, PrivatePcscd


def sign_twice(address: str, tracer: Tracer | None = None) -> list[bytes]:
    with open_provider(address, pin=lambda: b"123456", tracer=tracer) as provider:
        key = cast("rsa.RSAPrivateKey", provider.identity(KeyRole.SIGNATURE).private_key)
        return [key.sign(data, padding.PKCS1v15(), SHA256()) for data in (b"first", b"second")]


@pytest.mark.parametrize("share", ["exclusive", "shared"])
def test_a_card_behind_pcsc_is_replayed(
    pytestconfig: pytest.Config, pcscd: PrivatePcscd, tmp_path: pathlib.Path, share: str
) -> None:
    require_pyscard(pytestconfig)
    path = tmp_path / "card.trace"
    pcscd.slot(netkey3())
    with FileTracer(path) as tracer:
        recorded = sign_twice(f"pcsc:{READERS[0]}?share={share}", tracer)
    assert bool(read_trace(path).powered) is (share == "shared")
    assert sign_twice(f"replay:{path}") == recorded
