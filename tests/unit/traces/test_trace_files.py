"""The tracer that writes a file, and what reads one."""

import contextlib
import logging
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

import demail_hw
from demail_hw.errors import ConfigurationError
from demail_hw.iso7816.trace import CardPowered, CommandSent, PowerUp, ReaderOpened, Trace, TraceEntry, Tracer
from demail_hw.traces.files import MAX_TRACE_FILE, FileTracer, read_trace
from demail_hw.traces.output_file import Mark, open_to_append

ATR = bytes.fromhex("3bbf96008131fe5d00640411030131c073f701d00090007d")
EXCHANGES = (
    TraceEntry("00a4000c023f00", "9000"),
    TraceEntry("00b0000004", "5a0a89496282"),
    TraceEntry("0020008106" + "**" * 6, "63c2"),
    TraceEntry("00200081", "63c2"),
    TraceEntry("00a4000c023f00", "", failure="CardRemoved: It was taken out."),
)
DECIPHERED = (
    TraceEntry("002a808601aa00", "5ec2e75ec2e76103"),
    TraceEntry("00c0000003", "5ec2e79000"),
    TraceEntry("00b0000003", "0102039000"),
)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "card.trace"


def record(tracer: Tracer, *entries: TraceEntry) -> None:
    for entry in entries:
        tracer.trace(CommandSent(entry.command))
        tracer.trace(entry)


def test_it_is_readable(path: pathlib.Path) -> None:
    with FileTracer(path) as tracer:
        tracer.trace(ReaderOpened("uTrust", "53692013000000"))
        tracer.trace(CardPowered(ATR))
        record(tracer, *EXCHANGES)
    head, *lines = path.read_text().splitlines()
    assert head.startswith("# demail-hw ")
    assert ", trace begun 20" in head
    assert lines == [
        "# reader: uTrust",
        "# reader serial: 53692013000000",
        f"# connected ATR {ATR.hex()}",
        "# SELECT MF",
        "> 00a4000c023f00",
        "<  9000",
        "# READ BINARY",
        "> 00b0000004",
        "< 5a0a8949 6282",
        "# The end of the file or record was reached before all bytes were read (6282).",
        "# VERIFY 81",
        "> 0020008106************",
        "<  63c2",
        "# It failed, and tries are left: 2 (63C2).",
        "# VERIFY 81 (status)",
        "> 00200081",
        "<  63c2",
        "# Tries left: 2 (63C2).",
        "# SELECT MF",
        "> 00a4000c023f00",
        "# no answer: CardRemoved: It was taken out.",
    ]


def test_it_is_read_as_it_was_written(path: pathlib.Path) -> None:
    with FileTracer(path) as tracer:
        tracer.trace(ReaderOpened("uTrust, Köln", None))
        tracer.trace(CardPowered(ATR))
        record(tracer, *EXCHANGES)
        tracer.trace(CardPowered(b"\x3b\0"))
        record(tracer, *EXCHANGES)
    assert read_trace(path) == Trace(EXCHANGES * 2, ATR, (PowerUp(len(EXCHANGES), b"\x3b\0"),), "uTrust, Köln")


def test_what_was_deciphered_is_masked_unless_it_is_wanted(path: pathlib.Path) -> None:
    with FileTracer(path) as tracer:
        record(tracer, *DECIPHERED)
    assert "5ec2e7" not in path.read_text()
    assert [entry.response for entry in read_trace(path).entries] == ["************6103", "******9000", "0102039000"]
    with FileTracer(path, deciphered=True) as tracer:
        record(tracer, *DECIPHERED)
    assert read_trace(path).entries == DECIPHERED


def test_an_exchange_may_be_told_at_its_end_alone(path: pathlib.Path) -> None:
    with FileTracer(path) as tracer:
        for entry in EXCHANGES:
            tracer.trace(entry)
    assert read_trace(path).entries == EXCHANGES


OLDER = "# demail-hw 0.0.1, trace begun 2025-01-01T00:00:00+00:00\n> 00a4000c023f00\n" + "x" * 10_000


@pytest.mark.parametrize("content", [OLDER, ""], ids=["a trace", "empty"])
@pytest.mark.parametrize("before", [0o644, 0o400, 0o666])
def test_a_trace_that_was_there_is_replaced_by_a_private_one(path: pathlib.Path, before: int, content: str) -> None:
    path.write_text(content)
    path.chmod(before)
    FileTracer(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().count("\n") == 1
    FileTracer(path).close()  # what it begins a trace with it knows again


OTHERS = {
    "a text": "Dear Sir,\n",
    "a key": "-----BEGIN PRIVATE KEY-----\n",
    "an end of line": "\n",
    "a zero byte": "\0",
    "a trace further down": f"\n{OLDER}",
    "about this program": "# demail-hw 0.1.0\n\n, trace begun 2025-01-01\n",
    "a trace of another program": "# reader: uTrust\n> 00a4000c023f00\n<  9000\n",
    "half a heading": OLDER[:30],
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_any_other_file_is_left_as_it_is(path: pathlib.Path, content: str) -> None:
    path.write_text(content)
    before = path.stat()
    with pytest.raises(ConfigurationError, match="no trace that was written here") as caught:
        FileTracer(path)
    assert path.read_text() == content
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert str(path) in caught.value.message
    assert "Name another file" in caught.value.remedy


def test_a_file_that_appears_meanwhile_is_left_as_it_is(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens = os.open

    def be_faster(name: pathlib.Path, flags: int, mode: int = 0o777) -> int:
        path.write_text("Dear Sir")
        return opens(name, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", be_faster)
        with pytest.raises(ConfigurationError, match="File exists"):
            FileTracer(path)
    assert path.read_text() == "Dear Sir"


def test_who_has_the_old_file_open_sees_nothing(path: pathlib.Path) -> None:
    path.write_text(OLDER)
    with path.open() as spy, FileTracer(path) as tracer:
        record(tracer, *EXCHANGES)
        assert spy.read() == OLDER
    assert path.stat().st_uid == os.geteuid()
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # and no draft


def test_no_link_to_a_file_is_followed(path: pathlib.Path) -> None:
    precious = path.with_name("precious")
    precious.write_text("keep")
    path.symlink_to(precious)
    with pytest.raises(ConfigurationError, match="cannot be written: it is a link to a file"):
        FileTracer(path)
    assert precious.read_text() == "keep"


def test_a_link_to_a_device_is_followed(path: pathlib.Path) -> None:
    path.symlink_to("/dev/null")
    with FileTracer(path) as tracer:
        assert tracer.enabled
    assert path.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a file away")
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_no_link_or_pipe_of_another_user_is_used(path: pathlib.Path, kind: str) -> None:
    if kind == "link":
        path.symlink_to("/dev/null")
    else:
        os.mkfifo(path)
    os.chown(path, 12345, 12345, follow_symlinks=False)
    with pytest.raises(ConfigurationError, match="of another user"):
        FileTracer(path)


SHARED = Mark("audit", re.compile(b"line"), private=False)
NOBODY = 65534


def append(path: pathlib.Path) -> None:
    with os.fdopen(open_to_append(path, SHARED), "ab") as file:
        file.write(b"line 2\n")


@pytest.mark.parametrize("before", [b"line 1\n", b"", None])
def test_what_is_not_private_is_added_behind_links(tmp_path: pathlib.Path, before: bytes | None) -> None:
    real = tmp_path / "real"
    if before is not None:
        real.write_bytes(before)
    (tmp_path / "near").symlink_to("real")
    (tmp_path / "far").symlink_to(tmp_path / "near")
    append(tmp_path / "far")
    assert real.read_bytes() == (before or b"") + b"line 2\n"


def test_a_link_to_what_is_of_another_kind(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mail").write_bytes(b"Dear Sir")
    (tmp_path / "link").symlink_to("mail")
    with pytest.raises(ConfigurationError, match="is no audit"):
        append(tmp_path / "link")


def test_a_circle_of_links(path: pathlib.Path) -> None:
    path.symlink_to(path)
    with pytest.raises(OSError, match="Too many levels"):
        append(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a link away")
def test_no_link_of_another_user_leads_to_a_file(path: pathlib.Path) -> None:
    path.symlink_to("real")
    os.chown(path, 12345, 12345, follow_symlinks=False)
    with pytest.raises(OSError, match="of another user"):
        append(path)
    assert not path.with_name("real").exists()


@contextlib.contextmanager
def without_privilege() -> Iterator[None]:
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if privileged:
            os.seteuid(0)


def test_what_may_only_be_appended_to(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = pathlib.Path("log")
    monkeypatch.chdir(tmp_path)  # whose parents are closed to others
    tmp_path.chmod(0o711)
    log.write_bytes(b"line 1\n")
    log.chmod(0o222)
    with without_privilege():
        append(log)
    log.chmod(0o600)
    assert log.read_bytes() == b"line 1\nline 2\n"


def test_a_name_that_is_none(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigurationError, match="embedded null"):
        FileTracer(f"{tmp_path}/a\0b")


def test_a_new_file_is_private_whatever_the_umask(path: pathlib.Path) -> None:
    before = os.umask(0)
    try:
        FileTracer(path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "none/card.trace", "x" * 300, "pipe"])
def test_a_file_that_cannot_be_written(tmp_path: pathlib.Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")  # and nobody reads it
    with pytest.raises(ConfigurationError, match="cannot be written") as caught:
        FileTracer(tmp_path / name)
    assert caught.value.file == str(tmp_path / name)


def test_it_may_go_into_a_pipe(tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with FileTracer(pipe) as tracer:
        record(tracer, *EXCHANGES)
    text = os.read(reader, 65536).decode()
    os.close(reader)
    assert Trace.parse(text).entries == EXCHANGES


def test_a_full_disk_ends_the_trace_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    tracer = FileTracer("/dev/full")
    assert not tracer.enabled
    record(tracer, *EXCHANGES)
    tracer.close()
    assert caplog.record_tuples == [
        ("demail_hw.traces.files", logging.WARNING, "The trace /dev/full ends here: No space left on device.")
    ]


def test_closing_ends_it(path: pathlib.Path) -> None:
    tracer = FileTracer(path)
    assert tracer.enabled
    tracer.close()
    tracer.close()
    assert not tracer.enabled
    record(tracer, *EXCHANGES)
    assert read_trace(path).entries == ()


def test_what_was_deciphered_goes_where_it_is_wanted(path: pathlib.Path) -> None:
    for deciphered in (False, True):
        with (
            FileTracer(path, deciphered=deciphered) as tracer,
            demail_hw.open_provider("sim:netkey3", pin=lambda: b"123456", tracer=tracer) as provider,
        ):
            identity = provider.identity(demail_hw.KeyRole.ENCRYPTION)
            public = identity.certificate.public_key()
            assert isinstance(public, RSAPublicKey)
            identity.private_key.decrypt(public.encrypt(b"CONTENT-KEY", PKCS1v15()), PKCS1v15())
        shown = any(b"CONTENT-KEY".hex() in entry.response for entry in read_trace(path).entries)
        assert shown is deciphered


def test_a_process_that_is_killed_leaves_the_command_that_was_under_way(path: pathlib.Path) -> None:
    code = f"""
import os, signal
from demail_hw import FileTracer
from demail_hw.iso7816.trace import CommandSent, TraceEntry
tracer = FileTracer({str(path)!r})
for entry in {EXCHANGES[:2]!r}:
    tracer.trace(CommandSent(entry.command))
    tracer.trace(entry)
tracer.trace(CommandSent({EXCHANGES[2].command!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_trace(path).entries == (*EXCHANGES[:2], TraceEntry(EXCHANGES[2].command, ""))


def test_it_is_where_a_user_finds_it(path: pathlib.Path) -> None:
    with (
        demail_hw.FileTracer(path) as tracer,
        demail_hw.open_provider("sim:", pin=lambda: b"123456", tracer=tracer) as provider,
    ):
        assert provider.identities()
    trace = read_trace(path)
    assert (trace.reader, trace.serial) == ("Simulated reader with the card netkey3", "SIM-NETKEY3")
    assert trace.atr == ATR
    assert len(trace.entries) > 10


# --- Reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"> 00a4000c\n<  9000\n> 00b00", 3),  # truncated
        (b"\x7fELF\x02\x01\x01" + bytes(range(256)), 1),
        (b"\xff\xfe>\x00 \x000\x000\x00", 1),  # UTF-16
        (b"> 00a4000c\n<  9000\n<  9000\n", 3),
        (b"# fine\n> " + b"00" * 200_000, 2),
        (b"{}", 1),
    ],
)
def test_what_is_no_trace_is_told_with_the_line(path: pathlib.Path, content: bytes, line: int) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^{path}: Line {line} of the trace") as caught:
        read_trace(path)
    assert (caught.value.file, caught.value.line) == (str(path), line)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf> 00a4000c023f00\r\n<  9000\r\n",  # UTF-8 with a byte order mark, from Windows
        "# Köln, über\u2028alles\n> 00a4000c023f00\n<  9000".encode(),
        "# Köln\n> 00a4000c023f00\n<  9000".encode("latin-1"),
        b"# \0\xff\x85\n> 00 A4 00 0C 02 3F 00\n< 90 00\n",
    ],
)
def test_comments_are_anybodys(path: pathlib.Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read_trace(path).entries == EXCHANGES[:1]


@pytest.mark.parametrize(("name", "said"), [("", "Is a directory"), ("none", "No such file"), ("a\0b", "null byte")])
def test_a_file_that_cannot_be_read(tmp_path: pathlib.Path, name: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_trace(f"{tmp_path}/{name}")


def test_what_has_no_end_is_not_read_to_the_end() -> None:
    with pytest.raises(ConfigurationError, match="longer than 64 MiB"):
        read_trace("/dev/zero")


def test_a_pin_that_somebody_wrote_into_a_trace_is_masked(path: pathlib.Path) -> None:
    path.write_text("> 0020008106313233343536\n<  9000\n")
    assert "3132" not in repr(read_trace(path))


def test_the_limit_is_told_in_the_sentence() -> None:
    assert MAX_TRACE_FILE == 64 << 20
