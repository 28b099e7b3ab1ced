"""The simulated card in the virtual reader of a real PC/SC service."""

import contextlib
import json
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator

from demail_hw_simulators.card.personalities import netkey3
from demail_hw_simulators.vpcd import DEFAULT_PORT
from pcscd import SECONDS, PrivatePcscd

ICCSN = "89 49 01 73 51 00 80 40 71 36"
READY = {
    "ready": "vpcd",
    "address": f"127.0.0.1:{DEFAULT_PORT}",
    "port": DEFAULT_PORT,
    "personality": "netkey3",
}


def test_a_card_is_there_and_gone_and_there(pcscd: PrivatePcscd) -> None:
    slot = pcscd.slot(netkey3())
    assert pcscd.run("opensc-tool", "--name").stdout == "TCOS\n"
    card = slot.remove()
    pcscd.wait_for_card(present=False)
    slot.insert(card)
    pcscd.wait_for_card()
    assert ICCSN in pcscd.run("opensc-tool", "--serial").stdout


def test_two_cards_in_two_slots(pcscd: PrivatePcscd) -> None:
    pcscd.slot(netkey3())
    pcscd.slot(netkey3(iccsn="89490173510080407144"), number=1)
    serials = [pcscd.run("opensc-tool", "--reader", str(number), "--serial").stdout for number in (0, 1)]
    assert [ICCSN in serials[0], "89 49 01 73 51 00 80 40 71 44" in serials[1]] == [True, True]


def test_the_card_comes_back_to_a_pcscd_that_was_restarted(pcscd: PrivatePcscd) -> None:
    pcscd.slot(netkey3())
    for end in (pcscd.stop, pcscd.kill):
        end()
        pcscd.start()
        pcscd.wait_for_card()
        assert pcscd.run("opensc-tool", "--name").stdout == "TCOS\n"


@contextlib.contextmanager
def simulate(pcscd: PrivatePcscd, *options: str, stderr: int | None = None) -> Iterator["subprocess.Popen[str]"]:
    """``demail-hw simulate vpcd`` beside vpcd; it is ended here, and ends well."""
    command = [sys.executable, "-m", "demail_hw.cli", "simulate", "vpcd", "--json", *options]
    with subprocess.Popen(
        pcscd.on_its_network(*command), stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0


def test_the_command_line_gives_pcsc_programs_a_card(pcscd: PrivatePcscd) -> None:
    with simulate(pcscd) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == READY
        pcscd.wait_for_card()
        assert ICCSN in pcscd.run("opensc-tool", "--serial").stdout
    pcscd.wait_for_card(present=False)


def test_it_says_ready_only_when_vpcd_has_asked_for_its_card(pcscd: PrivatePcscd) -> None:
    first = pcscd.slot(netkey3(iccsn="89490173510080407144"))
    with simulate(pcscd, stderr=subprocess.PIPE) as process, selectors.DefaultSelector() as said:
        assert process.stdout is not None
        assert process.stderr is not None
        said.register(process.stdout, selectors.EVENT_READ)
        said.register(process.stderr, selectors.EVENT_READ)
        ((key, _),) = said.select(SECONDS)
        assert key.fileobj is process.stderr
        assert "another one is in the slot" in json.loads(process.stderr.readline())["warning"]
        first.close()
        assert json.loads(process.stdout.readline()) == READY
        pcscd.wait_for_card()
        assert ICCSN in pcscd.run("opensc-tool", "--serial").stdout


def test_the_command_line_comes_back_to_a_pcscd_that_was_restarted(pcscd: PrivatePcscd) -> None:
    with simulate(pcscd, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline()) == READY
        pcscd.stop()
        assert "No vpcd listens" in json.loads(process.stderr.readline())["warning"]
        pcscd.start()
        pcscd.wait_for_card()
        assert ICCSN in pcscd.run("opensc-tool", "--serial").stdout


def test_the_command_line_takes_the_second_slot_and_a_personality(pcscd: PrivatePcscd) -> None:
    with simulate(pcscd, "--port", str(DEFAULT_PORT + 1), "--personality", "netkey3-fresh"):
        pcscd.wait_for_card(1)
        assert ICCSN in pcscd.run("opensc-tool", "--reader", "1", "--serial").stdout
