import errno
import io
import mmap
import os
import re
import socket
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import Option

from demail_hw import pin_sources
from demail_hw.cli.csr import csr_command
from demail_hw.cli.pin import verify_command
from demail_hw.errors import ConfigurationError, PinRequired
from demail_hw.pin_sources import SOURCES, CallablePinSource, DescriptorPinSource, parse_pin_source
from demail_hw.secret_memory import secret_page

PUK_BEHIND = b"\n87654321\n"


def pin_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[mmap.mmap]:
    """The pages that PINs are read into."""
    given: list[mmap.mmap] = []

    def keep() -> mmap.mmap:
        given.append(secret_page())
        return given[-1]

    monkeypatch.setattr(pin_sources, "secret_page", keep)
    return given


def handed_over(descriptor: int) -> int:
    """As whoever starts this process hands it over."""
    os.set_inheritable(descriptor, True)
    return descriptor


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose reading end was handed over, and which the source will close."""
    reading, writing = os.pipe()
    yield handed_over(reading), writing
    os.close(writing)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(reading)


@pytest.mark.parametrize(
    ("content", "pin"),
    [
        (b"123456", b"123456"),
        (b"123456\n", b"123456"),
        (b"123456\r\nx", b"123456"),
        (b" 1 \n", b" 1 "),
        (b"123456\n\n", b"123456"),
        (b"123456\r\r\n", b"123456\r"),  # one line end is taken off; the rest is for the guard to refuse
        (b"123456\r", b"123456\r"),
        (b"\xef\xbb\xbf123456\n", b"\xef\xbb\xbf123456"),
        (b"12\x003456\n", b"12\x003456"),
        (b"1" * 256 + b"\n", b"1" * 256),
    ],
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
    for content in (b"\n", b"\r\n", b"\n123456\n"):
        with pytest.raises(PinRequired, match="empty"):
            parse_pin_source(f"file:{pin_file(tmp_path, content)}").read()
    with pytest.raises(ConfigurationError, match="not a regular file"):
        parse_pin_source(f"file:{tmp_path}").read()
    with pytest.raises(ConfigurationError, match="not a regular file"):
        parse_pin_source("file:/dev/zero").read()


def test_of_a_link_it_is_the_file_that_counts(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(pin_file(tmp_path, b"123456\n", 0o644))
    with pytest.raises(ConfigurationError, match="0644"):
        parse_pin_source(f"file:{link}").read()
    pin_file(tmp_path, b"123456\n", 0o600)
    assert bytes(parse_pin_source(f"file:{link}").read().buffer) == b"123456"
    (tmp_path / "pin").unlink()
    with pytest.raises(PinRequired, match="No such file"):
        parse_pin_source(f"file:{link}").read()
    (tmp_path / "pin").symlink_to(link)
    with pytest.raises(PinRequired, match="symbolic links"):
        parse_pin_source(f"file:{link}").read()


def test_of_a_huge_file_a_little_is_read_and_it_is_no_pin(tmp_path: Path) -> None:
    path = pin_file(tmp_path, b"1" * 4096)
    os.truncate(path, 1 << 40)  # it has holes; nobody could read it
    with parse_pin_source(f"file:{path}").read() as secret:
        assert len(secret) == 256


def test_what_follows_the_first_line_is_wiped_when_it_was_read(tmp_path: Path, pages: list[mmap.mmap]) -> None:
    with parse_pin_source(f"file:{pin_file(tmp_path, b'123456' + PUK_BEHIND)}").read():
        assert pages[0][:] == b"123456".ljust(mmap.PAGESIZE, b"\0")
    assert pages[0][:] == bytes(mmap.PAGESIZE)


def test_what_was_read_before_an_error_is_wiped(
    tmp_path: Path, pages: list[mmap.mmap], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback holds on to the page."""
    really = os.readv

    def breaks_down(descriptor: int, buffers: list[memoryview]) -> int:
        if not really(descriptor, [buffers[0][:3]]):
            raise OSError(errno.EIO, "Input/output error")
        return 3

    monkeypatch.setattr(os, "readv", breaks_down)
    with pytest.raises(PinRequired, match="cannot be read: Input/output error"):
        parse_pin_source(f"file:{pin_file(tmp_path, b'123456')}").read()
    assert pages[0][:] == bytes(mmap.PAGESIZE)


def test_descriptor_gives_its_first_line_once_and_is_closed(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"123456\r\n87654321\n")
    source = parse_pin_source(f"fd:{reading}")
    with source.read() as secret:
        assert bytes(secret.buffer) == b"123456"
    for _ in range(2):
        with pytest.raises(PinRequired, match="once"):
            source.read()


def test_descriptor_is_read_piece_by_piece_until_the_line_ends(pipe: tuple[int, int]) -> None:
    reading, writing = pipe

    def write_slowly() -> None:
        for piece in (b"12", b"34", b"56\n"):
            os.write(writing, piece)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    with parse_pin_source(f"fd:{reading}").read() as secret:
        assert bytes(secret.buffer) == b"123456"
    writer.join()


def test_descriptor_without_a_line_end_is_read_to_its_end(tmp_path: Path) -> None:
    descriptor = handed_over(os.open(pin_file(tmp_path, b"123456"), os.O_RDONLY))
    assert bytes(parse_pin_source(f"fd:{descriptor}").read().buffer) == b"123456"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(descriptor)


@pytest.mark.parametrize("written", [b"", b"\n", b"\r\n"])
def test_descriptor_that_gives_nothing(written: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, written)
    os.close(writing)
    with pytest.raises(PinRequired, match="gave no PIN"):
        parse_pin_source(f"fd:{handed_over(reading)}").read()


def test_descriptor_that_nobody_writes_to_is_not_waited_for_in_vain(
    pipe: tuple[int, int], pages: list[mmap.mmap]
) -> None:
    reading, writing = pipe
    os.write(writing, b"123")
    source = DescriptorPinSource(reading, patience=0.0)
    with pytest.raises(PinRequired, match="no line"):
        source.read()
    assert pages[0][:] == bytes(mmap.PAGESIZE)


def test_descriptor_that_is_a_folder(tmp_path: Path) -> None:
    descriptor = handed_over(os.open(tmp_path, os.O_RDONLY))
    with pytest.raises(PinRequired, match="Is a directory"):
        parse_pin_source(f"fd:{descriptor}").read()


def unused_number() -> int:
    """Of no open descriptor; one that is opened next has it."""
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    return reading


def test_descriptor_that_is_not_open_is_refused_before_anything_is_opened() -> None:
    number = unused_number()
    with pytest.raises(ConfigurationError, match="not handed to this process") as caught:
        parse_pin_source(f"fd:{number}")
    assert "3<FILE" in caught.value.remedy
    with pytest.raises(ConfigurationError, match="Bad file descriptor"):
        DescriptorPinSource(number)


def test_a_descriptor_that_this_process_opened_itself_is_left_alone() -> None:
    """The socket of a reader, say, which got the number that nobody was there for."""
    ours, others = socket.socketpair()
    with ours, others:
        others.sendall(b"123456\n")
        with pytest.raises(ConfigurationError, match="not handed to this process"):
            parse_pin_source(f"fd:{ours.fileno()}")
        assert ours.recv(16) == b"123456\n"


def test_who_gets_the_number_of_a_descriptor_that_was_taken_keeps_it(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"123456\n")
    source = parse_pin_source(f"fd:{reading}")
    other, end = os.pipe()
    try:
        assert other == reading
        os.write(end, b"654321\n")
        with source.read() as secret:
            assert bytes(secret.buffer) == b"123456"
        assert os.read(other, 16) == b"654321\n"
    finally:
        os.close(other)
        os.close(end)


def test_a_descriptor_that_was_taken_is_no_childs_and_nobody_can_name_it_again(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    taken = unused_number()  # the next one that is free
    os.write(writing, b"123456\n")
    source = parse_pin_source(f"fd:{reading}")
    assert not os.get_inheritable(taken)
    for number in (reading, taken):
        with pytest.raises(ConfigurationError, match="not handed to this process"):
            parse_pin_source(f"fd:{number}")
    with source.read() as secret:
        assert bytes(secret.buffer) == b"123456"


@pytest.mark.parametrize("number", ["0", "1", "2", "-1", "+3", "3.0", "x", "\N{ARABIC-INDIC DIGIT SIX}", "9" * 5000])
def test_what_is_no_number_of_a_descriptor_for_a_pin(number: str) -> None:
    with pytest.raises(ConfigurationError, match="fd:N") as caught:
        parse_pin_source(f"fd:{number}", secret="password")
    assert "PIN" not in f"{caught.value} {caught.value.remedy}"


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
    for environment in ({}, {"PIN": ""}):
        with pytest.raises(PinRequired):
            parse_pin_source("env:PIN", environment=environment).read()


def test_the_environment_is_that_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    source = parse_pin_source("env:THE_PIN")
    monkeypatch.setitem(os.environ, "THE_PIN", "123456")
    with pytest.warns(RuntimeWarning):
        assert bytes(source.read().buffer) == b"123456"


def test_a_traceback_with_locals_shows_neither_a_literal_nor_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of our own functions: who called them has what it gave."""
    monkeypatch.setitem(os.environ, "THE_PIN", "918273")
    with pytest.raises(ConfigurationError) as literal:
        parse_pin_source("918273")
    with pytest.raises(TypeError) as text:
        CallablePinSource(lambda: os.environ["THE_PIN"]).read()  # type: ignore[arg-type, return-value]
    with warnings.catch_warnings(action="error"), pytest.raises(RuntimeWarning) as warned:
        parse_pin_source("env:THE_PIN").read()
    for caught in (literal, text, warned):
        assert caught.tb.tb_next is not None
        shown = traceback.TracebackException(
            caught.type, caught.value, caught.tb.tb_next, capture_locals=True
        ).format()
        assert "918273" not in "".join(shown)


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


def test_the_list_of_sources_names_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_pin_source("")
    assert SOURCES in caught.value.remedy
    kinds = re.findall(r"(\w+):", SOURCES)
    assert sorted(kinds) == ["credential", "env", "fd", "file", "keyring", "prompt"]
    for command in (csr_command, verify_command):
        assert any(SOURCES in option.help for option in command.params if isinstance(option, Option) and option.help)


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
