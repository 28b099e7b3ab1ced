"""Every error of the tree has its exit code, and its report in both forms."""

import json
import re
from pathlib import Path

import pytest

from demail_hw import errors
from demail_hw.cli.exit_codes import ExitCode, exit_code_of
from demail_hw.cli.main import main
from demail_hw.cli.output import error_report

EXPECTED = {
    ExitCode.NOT_FOUND: {errors.DeviceNotFound, errors.NoCard, errors.KeyNotFound, errors.FileNotFound},
    ExitCode.PIN: {
        errors.PinIncorrect,
        errors.PinBlocked,
        errors.PinNotInitialized,
        errors.PinRefused,
        errors.PinRequired,
    },
    ExitCode.CARD: {
        errors.CardError,
        errors.CardMute,
        errors.CardRemoved,
        errors.ReaderBusy,
        errors.ReaderError,
        errors.SecurityStatus,
        errors.SlotError,
        errors.UnexpectedCard,
        errors.UnknownCard,
    },
    ExitCode.TRANSPORT: {
        errors.DeadlineExceeded,
        errors.DeviceBusy,
        errors.DeviceLost,
        errors.ProtocolViolation,
        errors.ServerRefused,
        errors.TransferStalled,
        errors.TransferTimeout,
        errors.TransportError,
    },
    ExitCode.GATEWAY: {errors.GatewayError, errors.TlsKeyUnsupported},
    ExitCode.KEY: {
        errors.AlgorithmNotSupported,
        errors.CertificateError,
        errors.DecryptionFailed,
        errors.HardwareError,
        errors.KeyProviderError,
        errors.SignatureInvalid,
        errors.WrongRecipient,
    },
    ExitCode.CONFIGURATION: {errors.ConfigurationError},
}
EXTRA = {errors.PinIncorrect: {"retries_left": 2}, errors.SlotError: {"code": 0xFB}}


@pytest.mark.parametrize("code", EXPECTED, ids=lambda code: code.name)
def test_codes(code: ExitCode) -> None:
    for kind in EXPECTED[code]:
        assert exit_code_of(kind("It failed.", **EXTRA.get(kind, {}))) is code, kind


def test_no_error_is_forgotten() -> None:
    kinds = {value for name in errors.__all__ if issubclass(value := getattr(errors, name), errors.HardwareError)}
    assert kinds == set().union(*EXPECTED.values())


@pytest.mark.parametrize("layer", errors.Layer)
def test_what_any_layer_raises_goes_by_its_layer(layer: errors.Layer) -> None:
    assert exit_code_of(errors.DeadlineExceeded("Late.", layer=layer)) not in {ExitCode.OK, ExitCode.INTERNAL}


@pytest.mark.parametrize(
    ("address", "code"),
    [
        # Words that nobody can read.
        ("nonsense", ExitCode.USAGE),
        ("usbip://127.0.0.1:99999/", ExitCode.USAGE),
        ("sim:?share=perhaps", ExitCode.USAGE),
        # Words that make no sense here; no server is asked.
        ("xyz:1", ExitCode.CONFIGURATION),
        ("sim:none", ExitCode.CONFIGURATION),
        ("sim:none.toml", ExitCode.CONFIGURATION),
        ("usbip:127.0.0.1", ExitCode.CONFIGURATION),
        ("usbip:///", ExitCode.CONFIGURATION),
        ("usbip://127.0.0.1:1/reader", ExitCode.CONFIGURATION),
    ],
)
def test_what_is_wrong_with_an_address(address: str, code: ExitCode, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["card", "info", address, "--json"])
    error = json.loads(capsys.readouterr().err)["error"]
    assert stopped.value.code == error["exit_code"] == code
    assert error["remedy"]


def test_reports() -> None:
    error = errors.PinIncorrect("The card refused the PIN.", retries_left=2, status=0x63C2, command="VERIFY")
    text = error_report(error, ExitCode.PIN, as_json=False)
    assert text.startswith("demail-hw: The card refused the PIN. [card] Remedy: ")
    facts = json.loads(error_report(error, ExitCode.PIN, as_json=True))["error"]
    assert facts["type"] == "PinIncorrect"
    assert facts["outcome"] == "refused"
    assert facts["exit_code"] == ExitCode.PIN


def test_the_codes_are_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    documented = {int(number) for number in re.findall(r"^\| *`?(\d+)`? *\|", page, re.MULTILINE)}
    assert documented == {int(code) for code in ExitCode}
