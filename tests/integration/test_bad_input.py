"""Bad input seen from the top: a provider behind USB/IP, and a card, reader or link that misbehaves in a signature.

Each row: the error is typed, names the layer and whether the card may have acted, comes within the deadline, the
card was asked once and no PIN was sent again.
"""

import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import demail_hw
from demail_hw import KeyProvider, KeyRole, Timeouts
from demail_hw.errors import (
    CardMute,
    DeadlineExceeded,
    DeviceLost,
    HardwareError,
    Layer,
    Outcome,
    PinIncorrect,
    PinRefused,
    ProtocolViolation,
    SignatureInvalid,
    SlotError,
)
from demail_hw.interfaces import ExportedDevice
from demail_hw_drivers.usbip_server import UsbIpServer
from demail_hw_simulators import faults
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import open_card
from demail_hw_simulators.ccid_device import SimulatedUsbReader
from demail_hw_simulators.proxy import Proxy

PIN = "123456"
VERIFY, PERFORM_SECURITY_OPERATION = 0x20, 0x2A
STATUS_QUERY = 4
SHORT = Timeouts(connect=5.0, command=1.0)


class Witness:
    """A card that counts the PINs it is sent."""

    def __init__(self, card: SimulatedTcosCard) -> None:
        self._card = card
        self.verifies = 0

    def power_on(self) -> bytes:
        return self._card.power_on()

    def power_off(self) -> None:
        self._card.power_off()

    def transmit(self, command: bytes) -> bytes:
        self.verifies += command[1] == VERIFY and len(command) > STATUS_QUERY
        return self._card.transmit(command)


class Bench:
    """A card, what is between it and the USB server, and the provider in front."""

    def __init__(
        self,
        card_fault: faults.CardFault | None = None,
        reader_fault: faults.ReaderFault | None = None,
        *,
        pin: str = PIN,
    ) -> None:
        self.card: SimulatedTcosCard = open_card("netkey3")
        self._witness = Witness(self.card)
        faulty = faults.FaultyCard(self._witness, card_fault) if card_fault else self._witness
        self.reader = SimulatedUsbReader(faulty)
        self.reader_fault = reader_fault
        self.pin = pin
        self.timeouts = Timeouts()

    @contextlib.contextmanager
    def open(self) -> Iterator[KeyProvider]:
        device: ExportedDevice = self.reader
        if self.reader_fault:
            before = commands_before_the_first_operation()
            device = faults.FaultyReader(self.reader, self.reader_fault, after=before, times=1)
        with (
            UsbIpServer([device], port=0) as server,
            demail_hw.open_provider(
                f"usbip://127.0.0.1:{server.port}/", lambda: self.pin.encode(), timeouts=self.timeouts
            ) as provider,
        ):
            yield provider

    @property
    def verifies(self) -> int:
        """VERIFYs with a PIN, not those that ask for the counter."""
        return self._witness.verifies

    @property
    def operations(self) -> int:
        return self.card.instructions[PERFORM_SECURITY_OPERATION]


def commands_before_the_first_operation() -> int:
    """How many commands a clean run sends to the card before its first signature."""
    bench = Bench()
    with bench.open() as provider:
        sign(provider)
    return sum(bench.card.instructions.values()) - 1


def sign(provider: KeyProvider, role: KeyRole = KeyRole.SIGNATURE) -> bytes:
    key = provider.identity(role).private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.sign(b"message", padding.PKCS1v15(), hashes.SHA256())


def failure(action: Callable[[], object]) -> HardwareError:
    with pytest.raises(HardwareError) as caught:
        action()
    text = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert PIN not in text.replace(f'"{PIN}"', "").replace(f"'{PIN}'", "")
    return caught.value


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.FlippedBit(), SignatureInvalid),
        (faults.Truncated(2), SignatureInvalid),
        (faults.OneByteResponse(), ProtocolViolation),
        (faults.MuteCard(), CardMute),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type) else value.__name__,
)
@pytest.mark.parametrize("role", [KeyRole.SIGNATURE, KeyRole.AUTHENTICATION])
def test_a_card_that_answers_wrongly(fault: faults.CardFault, kind: type[HardwareError], role: KeyRole) -> None:
    bench = Bench(card_fault=fault)
    with bench.open() as provider:
        error = failure(lambda: sign(provider, role))
        assert type(error) is kind
        assert error.layer in {Layer.KEYS, Layer.CARD, Layer.READER}
        assert error.outcome is Outcome.UNKNOWN
        assert bench.operations == 1
        assert bench.verifies == 1


def test_a_wrong_decryption_fails_as_any_bad_padding_does() -> None:
    bench = Bench(card_fault=faults.FlippedBit())
    with bench.open() as provider:
        key = provider.identity(KeyRole.ENCRYPTION).private_key
        assert isinstance(key, rsa.RSAPrivateKey)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        cipher = key.public_key().encrypt(b"m", oaep)
        assert str(failure(lambda: key.decrypt(cipher, oaep))) == "Decryption failed. [keys]"


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (faults.WrongSequenceNumber(), (DeadlineExceeded, ProtocolViolation)),
        (faults.WrongSlot(), (ProtocolViolation,)),
        (faults.WrongMessageType(), (ProtocolViolation,)),
        (faults.LyingLength(), (DeadlineExceeded, ProtocolViolation)),
        (faults.LyingLength(length=0xFFFFFFFF), (ProtocolViolation,)),
        (faults.TimeExtensionForEver(), (DeadlineExceeded,)),
        (faults.SlotFailure(0xFB), (SlotError,)),
    ],
    ids=lambda value: repr(value) if not isinstance(value, tuple) else "",
)
def test_a_reader_that_answers_wrongly(fault: faults.ReaderFault, kinds: tuple[type[HardwareError], ...]) -> None:
    bench = Bench(reader_fault=fault)
    bench.timeouts = SHORT
    with bench.open() as provider:
        began = time.monotonic()
        error = failure(lambda: sign(provider))
        assert isinstance(error, kinds)
        assert error.outcome is Outcome.UNKNOWN
        assert error.layer in {Layer.READER, Layer.TRANSPORT, Layer.CARD}
        assert bench.operations == 1
        assert bench.verifies == 1
        # A bound on hanging, not a timing: ten times the deadline.
        assert time.monotonic() - began < 10 * SHORT.command


@pytest.mark.parametrize("cut_after", range(0, 364, 28))
def test_a_link_that_is_cut_in_mid_answer(cut_after: int) -> None:
    """The answers to a signature are 364 bytes, two USB/IP headers, a CCID header, signature and status: cut at many
    places."""
    card = open_card("netkey3")
    with UsbIpServer([SimulatedUsbReader(card)], port=0) as server:
        with Proxy(("127.0.0.1", server.port)) as relay:
            address = f"usbip://127.0.0.1:{relay.address[1]}/"
            with demail_hw.open_provider(address, lambda: PIN.encode()) as provider:
                sign(provider)
                before = card.instructions.copy()
                relay.cut_after(cut_after)
                error = failure(lambda: sign(provider))
                assert isinstance(error, (DeviceLost, ProtocolViolation)), error
                assert error.outcome is Outcome.UNKNOWN
                again = failure(lambda: sign(provider))
                assert isinstance(again, HardwareError)
                assert again.outcome is Outcome.NOT_SENT
        assert card.instructions[VERIFY] == before[VERIFY]
        assert card.instructions[PERFORM_SECURITY_OPERATION] - before[PERFORM_SECURITY_OPERATION] <= 1


def test_the_server_ends_in_mid_signature_and_the_provider_can_be_opened_anew() -> None:
    card = open_card("netkey3")
    reader = SimulatedUsbReader(card)
    with UsbIpServer([reader], port=0) as server:
        provider = demail_hw.open_provider(f"usbip://127.0.0.1:{server.port}/", lambda: PIN.encode())
        sign(provider)
        server.close()
        assert failure(lambda: sign(provider)).layer is Layer.TRANSPORT
        provider.close()
    with (
        UsbIpServer([reader], port=0) as server,
        demail_hw.open_provider(f"usbip://127.0.0.1:{server.port}/", lambda: PIN.encode()) as provider,
    ):
        sign(provider)


def test_a_wrong_pin_costs_one_verify_and_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    wrong = "975310"
    bench = Bench(pin=wrong)
    with caplog.at_level(logging.DEBUG), bench.open() as provider:
        with pytest.raises(PinIncorrect) as caught:
            sign(provider)
        assert caught.value.retries_left == 2
        for role in (KeyRole.SIGNATURE, KeyRole.AUTHENTICATION):
            with pytest.raises(PinRefused):
                sign(provider, role)
    assert bench.verifies == 1
    assert bench.operations == 0
    assert caplog.records
    for text in (caplog.text, caplog.text.replace(" ", ""), str(caught.value)):
        assert wrong not in text
        assert wrong.encode().hex() not in text


def test_the_card_is_taken_out() -> None:
    bench = Bench()
    with bench.open() as provider:
        sign(provider)
        bench.reader.remove()
        error = failure(lambda: sign(provider))
        assert error.layer is Layer.READER
        assert bench.verifies == 1
