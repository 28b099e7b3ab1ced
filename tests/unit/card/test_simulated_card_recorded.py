"""Everything that OpenSC 0.23 and GnuPG 2.2.40 were recorded to send, answered as recorded (vectors/README.md)."""

import dataclasses
import pathlib
from collections.abc import Iterator

import pytest

from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import NETKEY3, build_card, open_card

VECTORS = pathlib.Path(__file__).parent / "vectors"
CARD = "@card "
# That card's global PIN had never been set, but its PUK had all its tries.
NULL_PIN = dataclasses.replace(NETKEY3, pins=(dataclasses.replace(NETKEY3.pins[0], value=None), NETKEY3.pins[1]))


def fresh_card(name: str) -> SimulatedTcosCard:
    return build_card(NULL_PIN) if name == "scdaemon-null-pin" else open_card(personality(name))


def text(name: str) -> list[str]:
    return (VECTORS / f"{name}.txt").read_text(encoding="ascii").splitlines()


def personality(name: str) -> str:
    """The card that a file names."""
    named = [line.removeprefix(CARD) for line in text(name) if line.startswith(CARD)]
    return named[0] if named else "netkey3"


def lines(name: str) -> Iterator[list[str]]:
    for line in text(name):
        if line.startswith(CARD):
            continue
        if line.startswith("@") and line != "@reset":
            yield from lines(line[1:])
        elif not line.startswith("#"):
            yield line.split()


def expected(words: list[str]) -> tuple[str, str]:
    """Data and status that this card must give."""
    _, data, status, *ours = words
    return ("" if data == "-" else data), (ours[1] if ours else status)


def exchange(card: SimulatedTcosCard, words: list[str]) -> str:
    answer = card.transmit(bytes.fromhex(words[0])).hex()
    data, status = expected(words)
    return "" if answer[-4:] == status and data in ("*", answer[:-4]) else f"{words}: {answer}"


def replay(card: SimulatedTcosCard, name: str) -> Iterator[str]:
    """What came out otherwise than expected."""
    card.power_on()
    for words in lines(name):
        if words == ["@reset"]:
            card.power_off()
            card.power_on()
        elif difference := exchange(card, words):
            yield difference


@pytest.mark.parametrize("name", sorted(path.stem for path in VECTORS.glob("*.txt")))
def test_recorded_commands(name: str) -> None:
    assert list(replay(fresh_card(name), name)) == []


def test_the_recordings_are_there() -> None:
    assert sum(1 for path in VECTORS.glob("*.txt") for _ in lines(path.stem)) > 1500
    played = {personality(path.stem) for path in VECTORS.glob("*.txt")}
    assert played == {"netkey3", "netkey2", "idkey", "signature-card-v2"}
