"""Whatever a server sends, the kernel gets answers to what it asked, in bounded memory, or nothing."""

from hypothesis import given
from hypothesis import strategies as st

from demail_hw.errors import ProtocolViolation
from demail_hw.interfaces import Buffer
from demail_hw.usb.shown_descriptors import ShownDescriptors
from demail_hw.usbip.messages import (
    HEADER_SIZE,
    CmdSubmit,
    CmdUnlink,
    Direction,
    RetSubmit,
    RetUnlink,
    UrbStatus,
    decode_reply,
)
from demail_hw.usbip.pump import UrbPump

DEVID = 0x10002
LONGEST = 64
WORDS = st.integers(-(1 << 31), (1 << 31) - 1)
statuses = st.one_of(st.just(0), st.sampled_from([int(status) for status in UrbStatus]), WORDS)
packets = st.one_of(st.sampled_from([0, -1]), WORDS)

stray_unlinks = st.integers(1, 7).map(lambda seqnum: RetUnlink(seqnum, UrbStatus.OK).encode())


@st.composite
def requests(draw: st.DrawFn) -> list[CmdSubmit | CmdUnlink]:
    """Numbered from 1 on, as the kernel does; an unlink is of an earlier one."""
    asked: list[CmdSubmit | CmdUnlink] = []
    for seqnum in range(1, draw(st.integers(1, 6)) + 1):
        if seqnum > 1 and draw(st.integers(0, 3)) == 0:
            asked.append(CmdUnlink(seqnum, DEVID, draw(st.integers(1, seqnum - 1))))
        else:
            direction, length = draw(st.sampled_from(Direction)), draw(st.integers(0, LONGEST))
            asked.append(CmdSubmit(seqnum, DEVID, direction, 1, 0, length))
    return asked


def answer(draw: st.DrawFn, request: CmdSubmit | CmdUnlink) -> bytes:
    """One that is right more often than not, so that a lie behind it is met in every state."""
    if isinstance(request, CmdUnlink):
        return RetUnlink(request.seqnum, draw(statuses)).encode()
    asked = request.transfer_buffer_length
    length = draw(st.one_of(st.integers(0, asked), st.integers(asked - 1, asked + 2)))
    extras = draw(st.one_of(st.just((0, 0, 0)), st.tuples(WORDS, packets, WORDS)))
    carries = (request.direction == Direction.IN) is not (draw(st.integers(0, 9)) == 9)
    head = RetSubmit(request.seqnum, draw(statuses), length, *extras).encode()
    return head + (draw(st.binary(min_size=max(0, length), max_size=max(0, length))) if carries else b"")


@st.composite
def sessions(draw: st.DrawFn) -> tuple[list[CmdSubmit | CmdUnlink], bytes]:
    """What a kernel asked, and what it was told."""
    asked = draw(requests())
    order = draw(st.permutations(asked))
    replies = [answer(draw, request) for request in order]
    for _ in range(draw(st.integers(0, 2))):
        lie = draw(st.one_of(st.sampled_from(replies), stray_unlinks, st.binary(max_size=2 * HEADER_SIZE)))
        replies.insert(draw(st.integers(0, len(replies))), lie)
    return asked, b"".join(replies)


class StrictKernel:
    """Follows the rules of vhci_rx.c, and fails at what harms it there."""

    def __init__(self, asked: list[CmdSubmit | CmdUnlink]) -> None:
        self.pending = {each.seqnum: each for each in asked if isinstance(each, CmdSubmit)}
        self.unlinks = {each.seqnum: each.unlink_seqnum for each in asked if isinstance(each, CmdUnlink)}
        self.stream = b""

    def receive(self, buffers: list[Buffer]) -> None:
        self.stream += b"".join(buffers)
        while self.stream:
            # Whole messages alone: a kernel waits for the rest of one in a thread that nothing ends.
            reply = decode_reply(self.stream)
            assert reply.status in tuple(UrbStatus)
            size = self.submit(reply) if isinstance(reply, RetSubmit) else self.unlink(reply)
            assert len(self.stream) >= HEADER_SIZE + size
            self.stream = self.stream[HEADER_SIZE + size :]

    def submit(self, reply: RetSubmit) -> int:
        command = self.pending.pop(reply.seqnum)
        assert 0 <= reply.actual_length <= command.transfer_buffer_length
        assert reply.number_of_packets == 0
        return reply.actual_length if command.direction == Direction.IN else 0

    def unlink(self, reply: RetUnlink) -> int:
        target = self.unlinks.pop(reply.seqnum)
        assert self.pending.pop(target, None) is None or reply.status != UrbStatus.OK
        return 0


@given(sessions(), st.integers(1, 200))
def test_the_kernel_gets_answers_to_what_it_asked_or_nothing(
    session: tuple[list[CmdSubmit | CmdUnlink], bytes], chunk: int
) -> None:
    asked, stream = session
    pump, kernel = UrbPump(ShownDescriptors(b"")), StrictKernel(asked)
    for each in asked:
        out = isinstance(each, CmdSubmit) and each.direction == Direction.OUT
        data = bytes(each.transfer_buffer_length) if out and isinstance(each, CmdSubmit) else b""
        assert b"".join(pump.from_kernel(each.encode() + data)) == each.encode() + data
    passed = 0
    for start in range(0, len(stream), chunk):
        try:
            answers = list(pump.from_server(stream[start : start + chunk]))
        except ProtocolViolation:
            break
        kernel.receive(answers)
        passed += sum(map(len, answers))
        # What waits is one message that is not whole, of a length that the kernel asked for.
        assert pump.counters.bytes_in - passed < HEADER_SIZE + LONGEST


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_arbitrary_bytes(pieces: list[bytes]) -> None:
    pump = UrbPump(ShownDescriptors(b""))
    pump.from_kernel(CmdSubmit(1, DEVID, Direction.IN, 2, 0, LONGEST).encode())
    kernel = StrictKernel([CmdSubmit(1, DEVID, Direction.IN, 2, 0, LONGEST)])
    for piece in pieces:
        try:
            kernel.receive(list(pump.from_server(piece)))
        except ProtocolViolation:
            break
        assert pump.counters.bytes_in < 2 * HEADER_SIZE + LONGEST
