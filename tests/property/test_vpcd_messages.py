"""vpcd's messages, cut into any pieces."""

from hypothesis import given
from hypothesis import strategies as st

from demail_hw_simulators.vpcd import MessageBuffer, encode_message


@given(bodies=st.lists(st.binary(max_size=300), max_size=8), cuts=st.lists(st.integers(1, 400), max_size=20))
def test_messages_survive_any_cuts(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(encode_message, bodies))
    buffer = MessageBuffer()
    received: list[bytes] = []
    for size in (*cuts, len(stream)):
        buffer.feed(stream[:size])
        stream = stream[size:]
        received += buffer
    assert received == bodies


@given(st.binary(max_size=1000))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    buffer = MessageBuffer()
    buffer.feed(data)
    assert sum(len(body) + 2 for body in buffer) <= len(data)
