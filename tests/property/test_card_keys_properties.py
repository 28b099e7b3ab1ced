"""What a card says of its keys, in whatever bytes: numbers, certificates, signatures, its ATR."""

import contextlib
from contextlib import AbstractContextManager, nullcontext

from cryptography.hazmat.primitives.asymmetric import utils
from hypothesis import given
from hypothesis import strategies as st

from demail_hw.errors import CardError, CertificateError, HardwareError
from demail_hw.interfaces import Buffers, Deadline
from demail_hw.iso7816.channel import Channel
from demail_hw.iso7816.limits import EXTENDED_LIMITS
from demail_hw.keys.certificate_file import unwrap
from demail_hw.keys.ec_private_key import der_signature
from demail_hw.tcos.card import TcosCard
from demail_hw.tcos.netkey import NKS
from demail_hw.tcos.profiles import NETKEY2, NETKEY3, PROFILES
from demail_hw.tcos.public_key_file import RecordForm, decode_number
from demail_hw.tcos.recognition import recognise

DEADLINE = 99.0
ATRS = [bytes.fromhex(pattern.replace("?", "0")) for profile in PROFILES for pattern in profile.atrs]


class Babbler:
    """A card with these responses, over and over."""

    limits = EXTENDED_LIMITS
    epoch = 0

    def __init__(self, responses: list[bytes], atr: bytes = b"") -> None:
        self.atr = atr
        self._responses = responses
        self.commands = 0

    def transaction(self, *, deadline: Deadline) -> AbstractContextManager[object]:
        return nullcontext()

    def transmit(self, command: Buffers, *, deadline: Deadline) -> bytes:
        self.commands += 1
        return self._responses[self.commands % len(self._responses)]

    def reset(self, *, deadline: Deadline) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


RESPONSES = st.lists(
    st.one_of(
        st.binary(max_size=260),
        st.builds(
            lambda data, status: data + status, st.binary(max_size=256), st.sampled_from([b"\x90\x00", b"b\x82"])
        ),
    ),
    min_size=1,
    max_size=12,
)


@given(st.integers(min_value=0, max_value=2**2032 - 1), st.integers(1, 254))
def test_a_number_in_a_record_is_read_as_written(number: int, tag: int) -> None:
    value = number.to_bytes((number.bit_length() + 7) // 8, "big")
    assert decode_number(value, RecordForm.PLAIN) == number
    assert decode_number(bytes((tag, len(value))) + value, RecordForm.SIMPLE_TLV) == number


@given(st.binary(max_size=300), st.sampled_from(RecordForm))
def test_arbitrary_records(record: bytes, form: RecordForm) -> None:
    with contextlib.suppress(CardError):
        assert decode_number(record, form) >= 0


@given(
    st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(b"\x30\x82\x00\x80\x06\x03\x55\x04\x24".__add__))
)
def test_an_arbitrary_file_holds_a_certificate_or_none(content: bytes) -> None:
    with contextlib.suppress(CertificateError):
        found = unwrap(content)
        assert found is None or found in content


@given(st.integers(1, 66).flatmap(lambda size: st.tuples(st.binary(min_size=size, max_size=size), st.just(size))))
def test_r_and_s_are_read_as_written(drawn: tuple[bytes, int]) -> None:
    half, size = drawn
    r, s = utils.decode_dss_signature(der_signature(half + half[::-1]))
    assert (r.to_bytes(size, "big"), s.to_bytes(size, "big")) == (half, half[::-1])


@given(st.one_of(st.binary(max_size=33), st.sampled_from(ATRS)), RESPONSES)
def test_any_card_is_recognised_or_refused(atr: bytes, responses: list[bytes]) -> None:
    connection = Babbler(responses, atr)
    with contextlib.suppress(HardwareError):
        assert recognise(Channel(connection), deadline=DEADLINE).has_atr(atr)
    assert connection.commands <= len(PROFILES)


@given(RESPONSES, st.sampled_from([NETKEY2, NETKEY3]))
def test_whatever_a_card_says_is_a_typed_error_or_a_value(responses: list[bytes], profile) -> None:
    card = TcosCard(Babbler(responses), profile)
    for use in (
        lambda: card.serial_number(deadline=DEADLINE),
        lambda: card.read_file(NKS, 0xC000, deadline=DEADLINE),
        lambda: card.read_public_key(NKS, profile.keys[0].public_key_file, deadline=DEADLINE),
        lambda: card.pin_status(profile.pins[0], deadline=DEADLINE),
        lambda: card.compute_digital_signature(profile.keys[0], b"digest", deadline=DEADLINE),
        lambda: card.decipher(profile.keys[1], bytes(128), deadline=DEADLINE),
    ):
        with contextlib.suppress(HardwareError):
            use()
