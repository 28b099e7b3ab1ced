"""Every instruction of every personality, with odd parameters and lengths: a status word, and never an exception."""

import functools

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.commands.table import COMMANDS
from demail_hw_simulators.card.file_system import DedicatedFile
from demail_hw_simulators.card.personalities import PERSONALITIES

NAMES = sorted(set(PERSONALITIES) - {"telesec"})
PIN_COMMANDS = (0x20, 0x24, 0x2C)
DONE, REFUSED = b"\x90\x00", b"\x69\x82"

INTERESTING = bytes.fromhex("00 01 02 03 04 06 08 09 0C 41 7F 80 81 84 86 9A 9E B6 B8 C1 FF")
parameters = st.one_of(st.sampled_from(list(INTERESTING)), st.integers(0, 255))
short_fields = st.builds(
    lambda data, le: bytes((len(data),)) + data + le,
    st.binary(min_size=1, max_size=255),
    st.sampled_from([b"", b"\x00", b"\x80"]),
)
extended_fields = st.builds(
    lambda data, le: b"\x00" + len(data).to_bytes(2, "big") + data + le,
    st.binary(min_size=1, max_size=300),
    st.sampled_from([b"", b"\x00\x00", b"\x01\x00"]),
)
length_fields = st.one_of(st.just(b""), short_fields, extended_fields, st.binary(max_size=8))
command_bytes = st.builds(
    lambda ins, p1, p2, rest: bytes((COMMANDS[ins].cla, ins, p1, p2)) + rest,
    st.sampled_from(sorted(COMMANDS)), parameters, parameters, length_fields,
)  # fmt: skip


@functools.cache
def applications(name: str) -> list[bytes]:
    """SELECTs of the DFs of a card."""
    root = PERSONALITIES[name]().file_system.root
    directories = [file for file in root.files.values() if isinstance(file, DedicatedFile)]
    return [b"\x00\xa4\x08\x0c\x02" + directory.identifier.to_bytes(2, "big") for directory in directories]


def opened(name: str) -> SimulatedTcosCard:
    card = PERSONALITIES[name]()
    card.power_on()
    return card


@pytest.mark.parametrize("name", NAMES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(data=st.data())
def test_a_status_word_whatever_is_sent(name: str, data: st.DataObject) -> None:
    card = opened(name)
    card.transmit(data.draw(st.sampled_from(applications(name))))
    for secret in data.draw(st.lists(st.sampled_from([b"\x00", b"\x03", b"\x80", b"\x81"]), max_size=2)):
        card.transmit(b"\x00\x20\x00" + secret + b"\x06123456")
    for command in data.draw(st.lists(command_bytes, max_size=20)):
        answer = card.transmit(command)
        assert len(answer) >= 2
        assert answer[-2] >> 4 in (6, 9)


def environments(card: SimulatedTcosCard) -> list[bytes]:
    """MSE for each key of the current DF, for all that it is for."""
    found = []
    for p1 in (0x41, 0xC1):
        for template in (0xB6, 0xB8):
            for reference in range(0x80, 0x90):
                command = bytes((0x00, 0x22, p1, template, 3, 0x84, 1, reference))
                if card.transmit(command) == DONE:
                    found.append(command)
    return found


def operations() -> list[bytes]:
    """PSO with what some key can work on: as signatures, as blocks with an indicator and without, and as a point."""
    generator = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    brainpool = ec.derive_private_key(1, ec.BrainpoolP256R1()).public_key()
    points = [
        b"\x00" + key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) for key in (generator, brainpool)
    ]
    blocks = [indicator + bytes(length) for indicator in (b"\x00", b"\x02", b"\x81") for length in (128, 256)]
    return [
        short_or_extended(0x9E, 0x9A, bytes(32)),
        *(short_or_extended(0x80, 0x86, block) for block in (*blocks, *points)),
        short_or_extended(0x84, 0x80, bytes(128)),
    ]


def short_or_extended(p1: int, p2: int, data: bytes) -> bytes:
    if len(data) < 256:
        return bytes((0x00, 0x2A, p1, p2, len(data))) + data + b"\x00"
    return bytes((0x00, 0x2A, p1, p2, 0)) + len(data).to_bytes(2, "big") + data + b"\x00\x00"


@pytest.mark.parametrize("name", NAMES)
def test_no_key_works_before_any_secret(name: str) -> None:
    """Every key, set for all that it is for, with everything that it could work on."""
    card, keys = opened(name), 0
    for application in applications(name):
        card.transmit(application)
        for environment in environments(card):
            assert card.transmit(environment) == DONE
            refused = [card.transmit(operation) for operation in operations()]
            assert REFUSED in refused
            assert DONE not in {answer[-2:] for answer in refused}
            keys += 1
    assert keys >= 3


@pytest.mark.parametrize("name", NAMES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(data=st.data())
def test_no_key_works_without_a_secret(name: str, data: st.DataObject) -> None:
    card = opened(name)
    card.transmit(data.draw(st.sampled_from(applications(name))))
    likely = st.sampled_from([*environments(card), *operations(), *applications(name)])
    for command in data.draw(st.lists(st.one_of(command_bytes, likely), max_size=20)):
        answer = card.transmit(command)
        if command[1] in PIN_COMMANDS and len(command) > 5 and answer == DONE:
            return  # a secret by chance: six zeros stand for a NullPIN
        assert command[1] != 0x2A or answer[-2:] != DONE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ins", range(256))
def test_every_instruction_answers_every_length(name: str, ins: int) -> None:
    card = swept(name)
    for cla in (0x00, 0x80):
        for rest in (b"", b"\x00", b"\x01\x00", b"\x02\x3f\x00", b"\x00\x00\x00", b"\x00\x00\x01\xff", b"\xff"):
            for p1, p2 in ((0, 0), (0x41, 0xB6), (0xC1, 0xB8), (0x9E, 0x9A), (0x80, 0x86), (0xFF, 0xFF)):
                assert card.transmit(bytes((cla, ins, p1, p2)) + rest)[-2] >> 4 in (6, 9)


@functools.cache
def swept(name: str) -> SimulatedTcosCard:
    """One card for the whole sweep: it has to survive that too."""
    return opened(name)
