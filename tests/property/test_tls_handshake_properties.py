"""Whatever comes over the wire: the decoders raise ProtocolViolation or nothing, the observer nothing at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demail_hw.errors import ProtocolViolation
from demail_hw.gateway import handshake
from demail_hw.gateway.domains import DomainList
from demail_hw.gateway.handshake import HandshakeObserver, Record, Sender

DECODERS = [
    handshake.Alert,
    handshake.CertificateMessage,
    handshake.CertificateRequest,
    handshake.CertificateVerify,
    handshake.ClientHello,
    handshake.ServerHello,
    handshake.ServerKeyExchange,
]


@pytest.mark.parametrize("message", DECODERS, ids=lambda message: message.__name__)
@given(data=st.binary(max_size=400))
def test_a_message_is_decoded_or_refused(message: type[handshake.ServerHello], data: bytes) -> None:
    try:
        value = message.decode(data)
    except ProtocolViolation:
        return
    assert isinstance(value, message)


def record(kind: int, fragment: bytes) -> bytes:
    return bytes((kind, 3, 3)) + len(fragment).to_bytes(2, "big") + fragment


messages = st.builds(
    lambda kind, body: bytes((kind,)) + len(body).to_bytes(3, "big") + body,
    st.sampled_from(handshake.HandshakeType),
    st.binary(max_size=120),
)
wire = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(record, st.sampled_from(handshake.ContentType), st.binary(max_size=120)),
        st.builds(record, st.just(handshake.ContentType.HANDSHAKE), messages),
    ),
    max_size=6,
)


@given(pieces=wire, sender=st.sampled_from(Sender))
def test_the_observer_never_raises(pieces: list[bytes], sender: Sender) -> None:
    observer = HandshakeObserver()
    for piece in pieces:
        observer.note(sender, piece)


@given(pieces=wire, cut=st.integers(min_value=1, max_value=9))
def test_how_the_bytes_are_cut_makes_no_difference(pieces: list[bytes], cut: int) -> None:
    whole, cuts = HandshakeObserver(), HandshakeObserver()
    data = b"".join(pieces)
    whole.note(Sender.GATEWAY, data)
    for start in range(0, len(data), cut):
        cuts.note(Sender.GATEWAY, data[start : start + cut])
    assert view(cuts) == view(whole)


def view(observer: HandshakeObserver) -> tuple[object, ...]:
    return (
        observer.alert,
        observer.server_hello,
        observer.server_certificates,
        observer.server_key_exchange,
        observer.certificate_request,
    )


@given(kind=st.integers(0, 255), fragment=st.binary(max_size=300), rest=st.binary(max_size=20))
def test_a_record_comes_back_as_it_was_made(kind: int, fragment: bytes, rest: bytes) -> None:
    decoded = Record.decode(bytearray(record(kind, fragment) + rest))
    assert decoded == Record(kind, fragment)
    assert decoded is not None
    assert decoded.size == 5 + len(fragment)


@given(data=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_an_answer_is_read_or_refused(data: bytes) -> None:
    try:
        DomainList.decode(data)
    except (ValueError, ProtocolViolation):
        return
