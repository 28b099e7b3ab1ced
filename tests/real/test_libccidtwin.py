"""libccid's serial driver judges the simulated serial reader, and the card behind it: its T=1 runs in the host."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.reader_profiles import reader_profile
from demail_hw_simulators.serial_reader import ReaderOnPty, SerialReader
from pcsc_client import ForeignProgram, require_pyscard
from serial_pcscd import READER, SerialPcscd, serial_pcscd

SELECT_MF = bytes.fromhex("00A4000C023F00")
SELECT_NKS = bytes.fromhex("00A4040C07D2760000030102")
SELECT_CERTIFICATE = bytes.fromhex("00A4020C024331")
READ_256 = bytes.fromhex("00B0000000")
ATR = netkey3().power_on()


class Twin(NamedTuple):
    """A PC/SC service with the serial reader, and the hand at its slot."""

    pcscd: SerialPcscd
    slot: SimulatedUsbReader


@pytest.fixture
def twin(pytestconfig: pytest.Config, tool: Callable[[str], str], pcscd_folder: pathlib.Path) -> Iterator[Twin]:
    require_pyscard(pytestconfig)
    program, library = tool("pcscd"), tool("/usr/lib/pcsc/drivers/serial/libccidtwin.so")
    tool("unshare")
    tool("opensc-tool")
    slot = SimulatedUsbReader(netkey3(), profile=reader_profile("host_pps"))
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(ReaderOnPty(SerialReader(slot)))
        running = stack.enter_context(serial_pcscd(pcscd_folder, line.path, program=program, library=library))
        running.wait_for_card()
        yield Twin(running, slot)


@pytest.fixture
def program(twin: Twin) -> Iterator[ForeignProgram]:
    with ForeignProgram(twin.pcscd.environment) as opened:
        yield opened


def test_the_reader_is_there_with_the_card_and_its_atr(twin: Twin) -> None:
    assert READER in twin.pcscd.run("opensc-tool", "--list-readers").stdout
    said = twin.pcscd.run("opensc-tool", "--atr").stdout
    assert bytes.fromhex(said.strip().replace(":", "")) == ATR


def test_two_hundred_apdus(program: ForeignProgram) -> None:
    program.connect(READER)
    assert {program.transmit(SELECT_MF) for _ in range(200)} == {b"\x90\x00"}


def test_an_answer_longer_than_a_block_comes_whole(program: ForeignProgram) -> None:
    card = netkey3()
    card.power_on()
    program.connect(READER)
    for command in (SELECT_NKS, SELECT_CERTIFICATE, READ_256):
        expected, said = card.transmit(command), program.transmit(command)
        assert said == expected
    assert len(said) == 258


def test_the_card_is_out_and_in_again(twin: Twin, program: ForeignProgram) -> None:
    twin.slot.remove()
    twin.pcscd.wait_for_card(present=False)
    twin.slot.insert(netkey3())
    twin.pcscd.wait_for_card()
    program.connect(READER)
    assert program.transmit(SELECT_MF) == b"\x90\x00"


def test_opensc_reads_the_card_through_it(twin: Twin) -> None:
    said = twin.pcscd.run("pkcs15-tool", "--list-certificates").stdout
    assert "X.509 Certificate" in said
