"""Every codec of the room: what it writes it reads, and no bytes raise anything but a violation."""

import contextlib
import dataclasses
from functools import reduce
from operator import xor

from hypothesis import assume, given
from hypothesis import strategies as st

from demail_hw.errors import ProtocolViolation
from demail_hw.interfaces import CardLimits
from demail_hw.iso7816 import tlv
from demail_hw.iso7816.apdu import SECRET_INSTRUCTIONS, CommandApdu, ResponseApdu
from demail_hw.iso7816.atr import MAX_ATR, Atr, Convention, HistoricalBytes, InterfaceBytes
from demail_hw.iso7816.command_names import CommandView, command_name
from demail_hw.iso7816.processors import CommandChaining
from demail_hw.iso7816.trace import MASKED, PowerUp, Trace, TraceEntry, mask

BYTE = st.integers(0, 255)


def joined(command: CommandApdu) -> bytes:
    return b"".join(command.encode())


# --- APDU ------------------------------------------------------------------------------------------------------

LENGTH = st.one_of(st.sampled_from([0, 1, 254, 255, 256, 257, 65535]), st.integers(0, 600))
NE = st.one_of(st.sampled_from([0, 1, 255, 256, 257, 65535, 65536]), st.integers(0, 65536))


@st.composite
def data_fields(draw: st.DrawFn) -> tuple[bytes, ...]:
    length = draw(LENGTH)
    pattern = draw(st.binary(min_size=1, max_size=64))
    data = (pattern * (length // len(pattern) + 1))[:length]
    cut = draw(st.integers(0, length))
    return tuple(part for part in (data[:cut], data[cut:]) if part)


COMMANDS = st.builds(CommandApdu, BYTE, BYTE, BYTE, BYTE, data_fields(), NE)


@given(COMMANDS)
def test_commands_of_every_case_are_read_as_written(command: CommandApdu) -> None:
    read = CommandApdu.decode(joined(command))
    assert read == dataclasses.replace(command, data=(b"".join(command.data),) if command.nc else ())
    assert joined(read) == joined(command)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_command_or_a_violation(encoded: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        command = CommandApdu.decode(encoded)
        assert CommandApdu.decode(joined(command)) == command


@given(st.binary(max_size=300), st.integers(0, 0xFFFF))
def test_responses_are_read_as_written(data: bytes, status: int) -> None:
    assert ResponseApdu.decode(ResponseApdu(data, status).encode()) == ResponseApdu(data, status)


@given(COMMANDS, st.booleans(), st.integers(16, 300) | st.integers(16, 66000), st.integers(3, 66000))
def test_pieces_of_a_chain_fit_and_carry_the_whole(
    command: CommandApdu, extended: bool, max_command: int, max_response: int
) -> None:
    assume(command.nc < 2000)
    sent: list[CommandApdu] = []

    def send(piece: CommandApdu, deadline: float) -> ResponseApdu:
        sent.append(piece)
        return ResponseApdu(b"", 0x9000)

    limits = CardLimits(extended, max_command, max_response)
    CommandChaining.for_limits(limits).process(command, send, 0.0)
    assert b"".join(bytes(buffer) for piece in sent for buffer in piece.data) == b"".join(command.data)
    assert all(len(joined(piece)) <= max_command for piece in sent)
    assert all(piece.ne + 2 <= max_response for piece in sent if piece.ne)
    assert all(piece.nc for piece in sent) or not command.nc
    assert extended or not any(piece.extended for piece in sent)
    assert [piece.cla for piece in sent] == [command.cla | 0x10] * (len(sent) - 1) + [command.cla]


# --- BER-TLV ---------------------------------------------------------------------------------------------------

PRIMITIVE_TAGS = st.sampled_from([0x02, 0x53, 0x80, 0x83, 0x84, 0x5F2D, 0x9F7F, 0x5F8101])
CONSTRUCTED_TAGS = st.sampled_from([0x30, 0x62, 0xA0, 0x7F21, 0xBF8148])
PRIMITIVES = st.builds(
    tlv.Tlv, PRIMITIVE_TAGS, st.one_of(st.binary(max_size=20), st.binary(min_size=120, max_size=300))
)


@st.composite
def objects_to_depth(draw: st.DrawFn, depth: int = 4) -> tuple[tlv.Tlv, ...]:
    choice = PRIMITIVES if depth == 1 else st.one_of(PRIMITIVES, constructed(depth))
    return tuple(draw(st.lists(choice, max_size=3)))


def constructed(depth: int) -> st.SearchStrategy[tlv.Tlv]:
    return st.builds(tlv.Tlv.constructed_of, CONSTRUCTED_TAGS, objects_to_depth(depth - 1))


@given(objects_to_depth())
def test_objects_are_read_as_written(objects: tuple[tlv.Tlv, ...]) -> None:
    encoded = tlv.encode_all(objects)
    assert tlv.decode_all(encoded) == objects
    for each in objects:
        assert tlv.encode_all(each.children) == (each.value if each.constructed else b"")


@given(objects_to_depth(), PRIMITIVE_TAGS)
def test_the_first_object_of_a_tag_is_found(objects: tuple[tlv.Tlv, ...], tag: int) -> None:
    def flat(row: tuple[tlv.Tlv, ...]) -> list[tlv.Tlv]:
        return [below for each in row for below in (each, *flat(each.children))]

    assert tlv.find(objects, tag) == next((each for each in flat(objects) if each.tag == tag), None)


@given(
    st.one_of(st.binary(max_size=200), st.lists(st.sampled_from([*b"\x30\xa0\x80\x82\x83\x84\x00\x01\x02\x1f\xff"])))
)
def test_arbitrary_bytes_are_objects_or_a_violation(encoded: bytes | list[int]) -> None:
    with contextlib.suppress(ProtocolViolation):
        objects = tlv.decode_all(bytes(encoded))
        assert tlv.encode_all(objects) == bytes(encoded)


@given(st.binary(max_size=8))
def test_arbitrary_bytes_are_a_header_or_a_violation(encoded: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        header = tlv.decode_header(encoded)
        assume(header.length <= tlv.MAX_SIZE)
        assert tlv.Tlv(header.tag, bytes(header.length)).encode()[: header.size] == encoded[: header.size]


# --- ATR -------------------------------------------------------------------------------------------------------

OPTIONAL = st.none() | BYTE


@st.composite
def atrs(draw: st.DrawFn) -> Atr:
    protocols = draw(st.lists(st.integers(0, 15), max_size=4))
    groups: list[InterfaceBytes] = []
    for index in range(len(protocols) + 1, 0, -1):
        qualifier = protocols[index - 2] if index > 1 else None
        following = groups[0] if groups else None
        td = None if following is None or following.qualifier is None else following.present | following.qualifier
        groups.insert(0, InterfaceBytes(index, qualifier, draw(OPTIONAL), draw(OPTIONAL), draw(OPTIONAL), td))
    historical = draw(st.binary(max_size=15))
    made = Atr(draw(st.sampled_from(Convention)), tuple(groups), historical, None)
    if any(protocols):
        made = dataclasses.replace(made, tck=reduce(xor, made.encode()[1:]))
    assume(len(made.encode()) <= MAX_ATR)
    return made


def look_at(atr: Atr) -> None:
    """Every property, for what it may raise."""
    assert atr.protocols
    assert 1 <= atr.t1.ifsc <= 254
    assert 0 <= atr.extra_guard_time <= 255
    assert atr.wi > 0
    assert atr.clock_rate is None or atr.clock_rate.fi >= 372
    assert atr.di is None or atr.di >= 1
    assert atr.specific_mode is None or atr.specific_mode.protocol <= 15


@given(atrs())
def test_answers_to_reset_are_read_as_written(atr: Atr) -> None:
    assert Atr.decode(atr.encode()) == atr
    look_at(atr)


@given(st.binary(max_size=40), st.sampled_from(["", "3b", "3f"]))
def test_arbitrary_bytes_are_an_answer_to_reset_or_a_violation(rest: bytes, ts: str) -> None:
    with contextlib.suppress(ProtocolViolation):
        atr = Atr.decode(bytes.fromhex(ts) + rest)
        look_at(atr)
        assert atr.encode() == bytes.fromhex(ts) + rest


@given(st.binary(max_size=15), st.sampled_from(["", "00", "80"]))
def test_arbitrary_bytes_are_historical_bytes_or_a_violation(rest: bytes, category: str) -> None:
    with contextlib.suppress(ProtocolViolation):
        read = HistoricalBytes.decode(bytes.fromhex(category) + rest)
        assert read.encode() == bytes.fromhex(category) + rest


# --- Traces ----------------------------------------------------------------------------------------------------

SECRET_COMMANDS = st.builds(
    CommandApdu, BYTE, st.sampled_from(sorted(SECRET_INSTRUCTIONS)), BYTE, BYTE, data_fields(), NE
)


@given(SECRET_COMMANDS)
def test_a_mask_leaves_header_and_lengths_and_no_secret_byte(command: CommandApdu) -> None:
    encoded = joined(command)
    pattern = mask(command.encode())
    shown = [pattern[at : at + 2] for at in range(0, len(pattern), 2)]
    assert len(shown) == len(encoded)
    start = len(encoded) - command.nc - (0 if not command.ne else 2 if command.extended else 1)
    hidden = range(start, start + command.nc)
    assert all((shown[at] == "**") == (at in hidden) for at in range(len(encoded)))
    assert all(shown[at] == f"{encoded[at]:02x}" for at in range(len(encoded)) if at not in hidden)


@given(SECRET_COMMANDS)
def test_a_mask_does_not_depend_on_the_secret(command: CommandApdu) -> None:
    other = dataclasses.replace(command, data=(bytes(command.nc),))
    assert mask(command.encode()) == mask(other.encode())


@given(BYTE, st.sampled_from(sorted(SECRET_INSTRUCTIONS)), st.binary(max_size=20))
def test_of_any_bytes_behind_a_secret_header_only_lengths_are_shown(cla: int, ins: int, body: bytes) -> None:
    encoded = bytes((cla, ins, 0, 0x81)) + body
    masked = mask((encoded,))
    assert len(masked) == 2 * len(encoded)
    with contextlib.suppress(ProtocolViolation):
        nc = CommandApdu.decode(encoded).nc
        assert masked.count("**") == nc
        return
    assert masked == encoded[:4].hex() + "**" * len(body)


PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
ENTRIES = st.builds(
    lambda command, data, status: TraceEntry.record(command.encode(), data and data + status.to_bytes(2, "big")),
    COMMANDS,
    st.binary(max_size=100),
    st.integers(0, 0xFFFF),
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    entries = tuple(draw(st.lists(ENTRIES, max_size=5)))
    later = [position + 1 for position in range(len(entries))]
    positions = sorted(draw(st.lists(st.sampled_from(later), max_size=3))) if later else []
    powered = tuple(PowerUp(position, draw(st.binary(max_size=33))) for position in positions)
    reader = draw(st.just("") | PRINTABLE)
    return Trace(
        entries, draw(st.binary(max_size=33)), powered, reader, draw(st.none() | PRINTABLE) if reader else None
    )


@given(traces())
def test_traces_are_read_as_written(trace: Trace) -> None:
    assert Trace.parse(trace.format()) == trace


@given(COMMANDS | SECRET_COMMANDS)
def test_a_masked_command_is_taken_apart_as_it_was_put_together(command: CommandApdu) -> None:
    view = CommandView.of(mask(command.encode()))
    assert view is not None
    assert view.header == (command.cla, command.ins, command.p1, command.p2)
    assert (view.nc, view.ne) == (command.nc, command.ne)
    hidden = command.secret or command.ins in (0xC2, 0xC3)  # ENVELOPE may hold a command with a PIN
    assert view.data == (MASKED * command.nc if hidden else b"".join(command.data).hex())


@given(st.binary(max_size=20), BYTE | st.sampled_from(sorted(SECRET_INSTRUCTIONS)))
def test_any_masked_bytes_have_a_name_and_never_lose_their_mask(rest: bytes, ins: int) -> None:
    masked = mask((bytes((0, ins)) + rest,))
    assert command_name(masked)
    view = CommandView.of(masked)
    assert view is None or view.masked == (MASKED in masked)


@given(st.text(alphabet="#><* 09afAF\n\t", max_size=80) | st.text(max_size=80))
def test_arbitrary_text_is_a_trace_or_a_violation(text: str) -> None:
    with contextlib.suppress(ProtocolViolation):
        trace = Trace.parse(text)
        assert Trace.parse(trace.format()) == trace
