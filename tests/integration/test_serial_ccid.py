"""A key behind a serial reader: over a pseudo-terminal, a COM server's raw port, and RFC 2217."""

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from demail_hw import KeyRole, open_provider
from demail_hw.registry import find_readers, open_reader
from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.card_link import CardWithAtr
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.reader_profiles import reader_profile
from demail_hw_simulators.serial_reader import FIRMWARE, ReaderOnPty, ReaderOnTcp, SerialReader

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("serial") is None, reason="pyserial is not here: pip install 'demail-hw[serial]'"
)
MESSAGE = b"De-Mail"
SELECT_MF = bytes.fromhex("00A4000C023F00")
T0_ATR = bytes.fromhex("3b1f96 0064041103 0131c073f701d0009000")

Opener = Callable[[SerialReader, contextlib.ExitStack], str]


def device(reader: SerialReader, stack: contextlib.ExitStack) -> str:
    return stack.enter_context(ReaderOnPty(reader)).path


def raw_tcp(reader: SerialReader, stack: contextlib.ExitStack) -> str:
    return f"socket://127.0.0.1:{stack.enter_context(ReaderOnTcp(reader)).port}"


def rfc2217(reader: SerialReader, stack: contextlib.ExitStack) -> str:
    from rfc2217_server import com_server  # it needs pyserial

    line = stack.enter_context(ReaderOnPty(reader))
    return f"rfc2217://127.0.0.1:{stack.enter_context(com_server(line.path))}"


@pytest.fixture(params=[device, raw_tcp, rfc2217], ids=lambda opener: opener.__name__)
def opener(request: pytest.FixtureRequest) -> Opener:
    return cast("Opener", request.param)


@pytest.fixture(params=[True, False], ids=["echo", "no echo"])
def address(opener: Opener, request: pytest.FixtureRequest) -> Iterator[str]:
    reader = SerialReader(SimulatedUsbReader(netkey3(), profile=reader_profile("host_pps")), echo=request.param)
    with contextlib.ExitStack() as stack:
        yield f"serial:{opener(reader, stack)}"


def test_a_card_of_t_0() -> None:
    card = CardWithAtr(netkey3(), T0_ATR)
    reader = SerialReader(SimulatedUsbReader(card, profile=reader_profile("host_pps")))
    with ReaderOnPty(reader) as line, contextlib.closing(open_reader(f"serial:{line.path}")) as opened:
        connection = opened.connect(deadline=time.monotonic() + 20)
        with connection.transaction(deadline=time.monotonic() + 20):
            assert connection.transmit((SELECT_MF,), deadline=time.monotonic() + 20) == b"\x90\x00"
        assert connection.atr == T0_ATR


# pyserial 3.5 sets up its RFC 2217 thread with methods that Python has deprecated.
@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")
def test_a_signature(address: str) -> None:
    with open_provider(address, pin=lambda: b"123456") as provider:
        key = cast("rsa.RSAPrivateKey", provider.identity(KeyRole.SIGNATURE).private_key)
        signature = key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")
def test_the_reader_is_found_and_its_card_seen(address: str) -> None:
    (info,) = find_readers(address)
    assert (info.address, info.name, info.serial, info.card) == (address, FIRMWARE.decode(), None, True)
