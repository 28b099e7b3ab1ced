"""A command on its way to pyscard, which takes a list of numbers: what is left of a PIN in it."""

import pytest

from demail_hw_drivers.pcsc_errors import PcscFailure
from demail_hw_drivers.pcsc_service import PcscService, byte_list

VERIFY = (bytes.fromhex("0020000006"), memoryview(b"123456"))


class Pyscard:
    """Answers with this return code, and notes what it got."""

    def __init__(self, code: int) -> None:
        self._code = code
        self.commands: list[bytes] = []

    def SCardTransmit(self, card: int, protocol: int, command: list[int]) -> list[object]:
        self.commands.append(bytes(command))
        return [self._code, [0x90, 0x00]]


def test_numbers_are_zeros_once_they_were_transmitted() -> None:
    scard, numbers = Pyscard(0), byte_list(VERIFY)
    assert PcscService(scard).transmit(1, 2, numbers) == b"\x90\x00"
    assert scard.commands == [b"".join(VERIFY)]
    assert numbers == [0] * 11


def test_numbers_are_zeros_if_they_could_not_be_transmitted() -> None:
    numbers = byte_list(VERIFY)
    with pytest.raises(PcscFailure):
        PcscService(Pyscard(0x80100016)).transmit(1, 2, numbers)
    assert numbers == [0] * 11


def test_a_traceback_with_locals_does_not_show_the_numbers() -> None:
    assert repr(byte_list(VERIFY)) == "<11 bytes>"
