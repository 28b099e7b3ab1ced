import io
import os
from pathlib import Path

import pytest

from demail_hw.errors import ConfigurationError, PinRequired
from demail_hw.pin_sources import CallablePinSource, parse_pin_source


def pin_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "pin"),
    [(b"123456", b"123456"), (b"123456\n", b"123456"), (b"123456\r\nx", b"123456"), (b" 1 \n", b" 1 ")],
)
def test_file_gives_its_first_line(tmp_path: Path, content: bytes, pin: bytes) -> None:
    with parse_pin_source(f"file:{pin_file(tmp_path, content)}").read() as secret:
        assert bytes(secret.buffer) == pin


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = pin_file(tmp_path, b"123456", mode)
    with pytest.raises(ConfigurationError, match=f"{mode:04o}") as caught:
        parse_pin_source(f"file:{path}").read()
    assert caught.value.remedy == f"chmod 600 {path}"
    assert "123456" not in str(caught.value)


def test_file_missing_empty_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(PinRequired, match="No such file"):
        parse_pin_source(f"file:{tmp_path}/none").read()
    with pytest.raises(PinRequired, match="empty"):
        parse_pin_source(f"file:{pin_file(tmp_path, b'')}").read()
    with pytest.raises(ConfigurationError, match="not a regular file"):
        parse_pin_source(f"file:{tmp_path}").read()


def test_credential(tmp_path: Path) -> None:
    pin_file(tmp_path, b"123456\n", 0o400)
    source = parse_pin_source("credential:pin", environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert bytes(source.read().buffer) == b"123456"
    with pytest.raises(PinRequired, match="LoadCredential"):
        parse_pin_source("credential:pin", environment={}).read()
    with pytest.raises(ConfigurationError):
        parse_pin_source("credential:../pin", environment={})


def test_a_credential_has_the_mask_of_its_acl_for_group_bits(tmp_path: Path) -> None:
    source = parse_pin_source("credential:pin", environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    pin_file(tmp_path, b"123456\n", 0o440)
    assert bytes(source.read().buffer) == b"123456"
    pin_file(tmp_path, b"123456\n", 0o444)
    with pytest.raises(ConfigurationError, match="0444"):
        source.read()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pin", 0o600)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        parse_pin_source(f"file:{tmp_path}/pin").read()


def test_what_is_not_unicode_is_kept_out_of_the_error() -> None:
    source = parse_pin_source("env:PIN", environment={"PIN": os.fsdecode(b"12345\xe4")})
    with pytest.warns(RuntimeWarning), source.read() as secret:
        assert not bytes(secret.buffer).isascii()  # so the guard refuses it


def test_environment_is_warned_about() -> None:
    source = parse_pin_source("env:PIN", environment={"PIN": "123456"})
    with pytest.warns(RuntimeWarning, match="file: or credential:") as warned:
        assert bytes(source.read().buffer) == b"123456"
    assert "123456" not in str(warned[0].message)
    with pytest.raises(PinRequired):
        parse_pin_source("env:PIN", environment={}).read()


def test_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    store = {("demail", "card"): "123456"}
    monkeypatch.setattr(keyring, "get_password", lambda service, user: store.get((service, user)))
    assert bytes(parse_pin_source("keyring:demail/card").read().buffer) == b"123456"
    with pytest.raises(PinRequired, match="demail/other"):
        parse_pin_source("keyring:demail/other").read()
    with pytest.raises(ConfigurationError):
        parse_pin_source("keyring:demail")


def test_prompt_fails_at_once_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("123456\n"))
    with pytest.raises(PinRequired, match="no terminal"):
        parse_pin_source("prompt:").read()
    monkeypatch.setattr("sys.stdin", None)  # as in a process that was started with standard input closed
    with pytest.raises(PinRequired, match="no terminal"):
        parse_pin_source("prompt:").read()


@pytest.mark.parametrize("text", ["123456", "", "file", "file:", "pin:123456", "123456:", ":"])
def test_a_literal_pin_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no PIN source") as caught:
        parse_pin_source(text)
    assert "123456" not in str(caught.value)


def test_callable_is_asked_each_time() -> None:
    answers = iter([bytearray(b"111111"), bytearray(b"222222")])
    source = CallablePinSource(lambda: next(answers))
    assert bytes(source.read().buffer) == b"111111"
    assert bytes(source.read().buffer) == b"222222"


def test_what_a_function_raises_is_no_pin_and_is_not_shown() -> None:
    secret = "geheimü1"
    with pytest.raises(PinRequired, match="UnicodeEncodeError") as caught:
        CallablePinSource(lambda: secret.encode("ascii")).read()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_error_of_ours_comes_through_a_function() -> None:
    def source() -> bytes:
        raise ConfigurationError("The store of PINs is not set up.")

    with pytest.raises(ConfigurationError, match="store of PINs"):
        CallablePinSource(source).read()
