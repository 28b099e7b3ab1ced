"""Return codes and what they prove."""

import sys

import pytest

from demail_hw.errors import (
    CardMute,
    CardRemoved,
    DeviceLost,
    DeviceNotFound,
    HardwareError,
    Layer,
    NoCard,
    Outcome,
    ReaderBusy,
    ReaderError,
    TransportError,
)
from demail_hw_drivers.pcsc_errors import PcscFailure, ReturnCode, Stage, pcsc_errors

FAILURES = [code for code in ReturnCode if code != ReturnCode.S_SUCCESS]


def error_of(code: int, stage: Stage) -> HardwareError:
    with pytest.raises(HardwareError) as caught, pcsc_errors(stage):
        raise PcscFailure(code)
    assert isinstance(caught.value.__cause__, PcscFailure)
    return caught.value


@pytest.mark.parametrize("code", [*FAILURES, 0x80100001, 0x8010001F])
@pytest.mark.parametrize("stage", Stage)
def test_every_code_is_a_sentence_at_every_stage(code: int, stage: Stage) -> None:
    error = error_of(code, stage)
    assert error.message.endswith(".")
    assert error.layer in (Layer.READER, Layer.TRANSPORT)


@pytest.mark.parametrize("code", FAILURES)
@pytest.mark.parametrize("stage", [Stage.ASKING, Stage.CONNECTING, Stage.JOINING, Stage.CONNECTED])
def test_only_a_command_can_have_reached_the_card(code: int, stage: Stage) -> None:
    assert error_of(code, stage).outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("code", FAILURES)
@pytest.mark.parametrize("platform", ["linux", "win32", "darwin"])
def test_command_may_have_been_done_unless_the_service_is_known_to_have_looked_first(
    monkeypatch: pytest.MonkeyPatch, platform: str, code: int
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    looked = platform == "linux" and code in (ReturnCode.W_RESET_CARD, ReturnCode.W_REMOVED_CARD)
    assert error_of(code, Stage.COMMAND).outcome is (Outcome.NOT_SENT if looked else Outcome.UNKNOWN)


@pytest.mark.parametrize(
    ("code", "connecting", "connected"),
    [
        (0x8010000C, NoCard, CardRemoved),
        (0x80100069, NoCard, CardRemoved),
        (0x80100067, CardMute, CardRemoved),
        (0x80100066, CardMute, CardMute),
        (0x8010000B, ReaderBusy, ReaderBusy),
        (0x80100009, DeviceNotFound, DeviceNotFound),
        (0x80100017, DeviceLost, DeviceLost),
        (0x8010000F, ReaderError, ReaderError),
        (0x8010001D, TransportError, DeviceLost),
        (0x8010001E, TransportError, DeviceLost),
        (0x80100013, DeviceLost, DeviceLost),
        (0x8010006A, TransportError, DeviceLost),
        (0x80100016, CardRemoved, CardRemoved),
        (0x80100068, CardRemoved, CardRemoved),
        (0x80100001, ReaderError, ReaderError),
    ],
)
def test_kinds(code: int, connecting: type[HardwareError], connected: type[HardwareError]) -> None:
    assert type(error_of(code, Stage.CONNECTING)) is type(error_of(code, Stage.JOINING)) is connecting
    assert type(error_of(code, Stage.CONNECTED)) is connected


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (ReturnCode.E_NO_SERVICE, "pcscd"),
        (ReturnCode.E_SHARING_VIOLATION, "gpgconf --kill scdaemon"),
        (ReturnCode.W_SECURITY_VIOLATION, "org.debian.pcsc-lite.access_card"),
        (ReturnCode.E_UNKNOWN_READER, "list the readers"),
    ],
)
def test_remedies(code: ReturnCode, remedy: str) -> None:
    assert remedy in error_of(code, Stage.CONNECTING).remedy


@pytest.mark.parametrize("stage", Stage)
def test_sharing_is_recommended_to_who_wanted_the_card_alone(stage: Stage) -> None:
    remedy = error_of(ReturnCode.E_SHARING_VIOLATION, stage).remedy
    assert "gpgconf --kill scdaemon" in remedy
    assert ("share=shared" in remedy) is (stage is Stage.CONNECTING)


def test_refusal_by_policy_is_not_tried_again_and_a_reset_is() -> None:
    assert not error_of(ReturnCode.W_SECURITY_VIOLATION, Stage.ASKING).transient
    assert error_of(ReturnCode.W_RESET_CARD, Stage.COMMAND).transient
