"""The PIN ledger on disk: where it is, what is in it, who may read it, and what becomes of it if something fails."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from child_process import Child
from demail_hw.address import Address
from demail_hw.errors import ConfigurationError, DeadlineExceeded, PinRefused
from demail_hw.interfaces import PinOperation, PinRecord, PinRecordState
from demail_hw.pin_ledger import FilePinLedger, MemoryPinLedger, ledger_for, state_directory

CARD, OTHER = "89490173510080407136", "89490173510080407144"
BEFORE = PinRecord(PinRecordState.ACCEPTED, PinOperation.VERIFY, datetime(2026, 11, 24, 12, tzinfo=UTC), 3)
AFTER = PinRecord(PinRecordState.PENDING, PinOperation.CHANGE, datetime(2026, 11, 24, 13, tzinfo=UTC), 2)
NOBODY = 65534
SECONDS = 20

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def soon() -> float:
    return time.monotonic() + SECONDS


def write(folder: Path, record: PinRecord | None = BEFORE) -> None:
    with FilePinLedger(folder).page(CARD, deadline=soon()) as page:
        page.write({"global": record})


def read(folder: Path) -> Mapping[str, PinRecord]:
    return FilePinLedger(folder).records(CARD)


def page_of(folder: Path) -> Path:
    return folder / "pins" / f"{CARD}.json"


# --- where it is


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/mail", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/var/lib/mail"),
        ({"STATE_DIRECTORY": "/var/lib/mail:/var/lib/other", "HOME": "/h"}, "/var/lib/mail"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/demail-hw"),
        ({"XDG_STATE_HOME": "state", "HOME": "/h"}, "/h/.local/state/demail-hw"),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/demail-hw"),
        ({"HOME": "/h"}, "/h/.local/state/demail-hw"),
    ],
)
def test_the_state_folder(variables: dict[str, str], folder: str) -> None:
    assert state_directory(variables) == Path(folder)


@pytest.mark.parametrize("variables", [{}, {"HOME": ""}, {"XDG_STATE_HOME": "state"}])
def test_no_state_folder(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        state_directory(variables)
    assert "--state-dir" in caught.value.remedy


def test_the_state_folder_is_of_the_process_unless_told_otherwise(state_dir: Path) -> None:
    assert state_directory() == state_dir


def test_a_card_that_ends_with_the_process_needs_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(ledger_for(Address.parse("sim:netkey3")), MemoryPinLedger)
    assert isinstance(ledger_for(Address.parse("usbip://127.0.0.1/"), directory=tmp_path), FilePinLedger)
    with pytest.raises(ConfigurationError):
        ledger_for(Address.parse("usbip://127.0.0.1/"))


@pytest.mark.parametrize("card", ["", "../other", "a/b", "a.b"])
def test_a_serial_number_is_no_path(tmp_path: Path, card: str) -> None:
    ledger = FilePinLedger(tmp_path)
    with pytest.raises(ValueError, match="serial number"):
        ledger.records(card)
    with pytest.raises(ValueError, match="serial number"), ledger.page(card, deadline=soon()):
        pass


# --- what is in it


def test_nothing_is_in_it_but_state_operation_time_and_counter(tmp_path: Path) -> None:
    write(tmp_path, AFTER)
    record = {"state": "pending", "operation": "change", "at": "2026-11-24T13:00:00+00:00", "retries_left": 2}
    assert json.loads(page_of(tmp_path).read_bytes()) == {"pins": {"global": record}}
    (lock,) = (tmp_path / "pins").glob("*.lock")
    assert lock.stat().st_size == 0
    assert sorted(path.name for path in (tmp_path / "pins").iterdir()) == [f"{CARD}.json", f"{CARD}.lock"]


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "half": b'{"pins": {"global": {"state": "pend',
    "no JSON": b"\x00\xff",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "a word": b'"pins"',
    "null": b"null",
    "no pins": b"{}",
    "pins are a list": b'{"pins": ["global"]}',
    "pins are a number": b'{"pins": 3}',
    "a record is a list": b'{"pins": {"global": []}}',
    "a record is null": b'{"pins": {"global": null}}',
}
GOOD: dict[str, Any] = {
    "state": "pending",
    "operation": "verify",
    "at": "2026-11-24T13:00:00+00:00",
    "retries_left": 3,
}
WRONG: list[tuple[str, Any]] = [
    ("state", "unknown"),
    ("state", None),
    ("state", ["pending"]),
    ("operation", "sign"),
    ("operation", {}),
    ("at", "yesterday"),
    ("at", 17),
    ("at", None),
    ("at", "2026-11-24T13:00:00"),
    ("retries_left", "3"),
    ("retries_left", 3.0),
    ("retries_left", True),
    ("retries_left", -1),
    ("retries_left", 16),
    ("retries_left", []),
    ("at_most", 16),
    ("at_most", "2"),
]


def broken_files() -> dict[str, bytes]:
    fields = {f"{name}={value!r}": {**GOOD, name: value} for name, value in WRONG}
    missing = {f"no {name}": {key: value for key, value in GOOD.items() if key != name} for name in GOOD}
    return BROKEN | {
        name: json.dumps({"pins": {"global": record}}).encode() for name, record in (fields | missing).items()
    }


def test_the_good_one_is_good(tmp_path: Path) -> None:
    """Else the broken ones would prove nothing."""
    write(tmp_path)
    page_of(tmp_path).write_text(json.dumps({"pins": {"global": GOOD}}))
    assert read(tmp_path)["global"].state is PinRecordState.PENDING


@pytest.mark.parametrize("content", broken_files().values(), ids=broken_files())
def test_a_broken_file_stops_everything_and_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    write(tmp_path)
    page_of(tmp_path).write_bytes(content)
    for use in (read, write):
        with pytest.raises(PinRefused, match="is broken") as caught:
            use(tmp_path)
        assert str(page_of(tmp_path)) in caught.value.message
        assert "pin status" in caught.value.remedy
        assert "delete that file" in caught.value.remedy
    assert page_of(tmp_path).read_bytes() == content
    page_of(tmp_path).unlink()
    write(tmp_path)
    assert read(tmp_path) == {"global": BEFORE}


def test_a_page_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path)
    page_of(tmp_path).unlink()
    os.mkfifo(page_of(tmp_path))
    with pytest.raises(PinRefused, match="is broken"):
        read(tmp_path)


def test_a_link_in_the_place_of_a_page_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    page_of(tmp_path / "a").unlink()
    page_of(tmp_path / "a").symlink_to(page_of(tmp_path / "b"))
    with pytest.raises(PinRefused, match="cannot be used"):
        read(tmp_path / "a")


# --- who may read it


READ_AS_SOMEBODY = """
import os, sys
from pathlib import Path
from demail_hw.errors import PinRefused
from demail_hw.pin_ledger import FilePinLedger
os.setresuid(*[int(sys.argv[1])] * 3)
try:
    FilePinLedger(Path()).records(sys.argv[2])
except PinRefused as error:
    print(error.message)
"""


def modes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in (folder, *sorted(folder.rglob("*")))
    }


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_it_is_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert modes(tmp_path / "a") == {
        ".": "0o700",
        "b": "0o700",
        "b/pins": "0o700",
        f"b/pins/{CARD}.json": "0o600",
        f"b/pins/{CARD}.lock": "0o600",
    }


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_in_which_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path)
    folder = tmp_path / "pins"
    folder.chmod(mode)
    with pytest.raises(PinRefused, match="Others may write") as caught:
        write(tmp_path, AFTER)
    assert caught.value.remedy.endswith(f"chmod go-w {folder}")
    folder.chmod(0o755)
    write(tmp_path, AFTER)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_above_it_in_which_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """They could put another one in its place, in which nothing is known."""
    write(tmp_path)
    tmp_path.chmod(mode)
    for use in (write, read):
        with pytest.raises(PinRefused, match="Others may write") as caught:
            use(tmp_path)
        assert caught.value.remedy.endswith(f"chmod go-w {tmp_path}")
    tmp_path.chmod(mode | stat.S_ISVTX)  # as /tmp: nobody renames what belongs to another
    write(tmp_path, AFTER)
    assert read(tmp_path) == {"global": AFTER}


def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b" / "pins").symlink_to(tmp_path / "a" / "pins")
    for use in (write, read):
        with pytest.raises(PinRefused, match=r"Not a directory|symbolic link"):
            use(tmp_path / "b")


def test_a_link_to_the_folder_above_it_is_followed(tmp_path: Path) -> None:
    """As ``STATE_DIRECTORY`` is one where the unit has ``DynamicUser=`` (systemd.exec(5))."""
    write(tmp_path / "private")
    (tmp_path / "state").symlink_to(tmp_path / "private")
    write(tmp_path / "state", AFTER)
    assert read(tmp_path / "private") == {"global": AFTER}


@as_root
def test_the_folder_of_a_stranger_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    os.chown(tmp_path / "pins", NOBODY, NOBODY)
    for use in (write, read):
        with pytest.raises(PinRefused, match=rf"belongs to another user \(uid {NOBODY}\)"):
            use(tmp_path)
    os.chown(tmp_path, NOBODY, NOBODY)  # that of a service, which root looks after
    write(tmp_path, AFTER)
    assert read(tmp_path) == {"global": AFTER}


@as_root
def test_a_service_does_not_use_the_folder_of_a_stranger(tmp_path: Path) -> None:
    """Not even of one who let it write there. The service is a child, as an effective user of its own."""
    other = NOBODY - 1
    open_to_all = tmp_path / "state"
    write(open_to_all)
    os.chown(open_to_all, NOBODY, NOBODY)
    os.chown(open_to_all / "pins", other, other)
    (open_to_all / "pins").chmod(0o755)
    child = subprocess.run(
        [sys.executable, "-c", READ_AS_SOMEBODY, str(NOBODY), CARD],
        cwd=open_to_all,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"belongs to another user (uid {other})" in child.stdout


@as_user
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_folder_in_which_one_may_not_write(tmp_path: Path, mode: int) -> None:
    write(tmp_path)
    (tmp_path / "pins").chmod(mode)
    try:
        with pytest.raises(PinRefused, match="Permission denied"):
            write(tmp_path, AFTER)
    finally:
        (tmp_path / "pins").chmod(0o700)
    assert read(tmp_path) == {"global": BEFORE}


@pytest.mark.parametrize("what", ["state", "pins"])
def test_a_file_in_the_place_of_a_folder(tmp_path: Path, what: str) -> None:
    state = tmp_path / "state"
    if what == "pins":
        state.mkdir()
    (state if what == "state" else state / "pins").touch()
    with pytest.raises(PinRefused, match="Not a directory"):
        write(state)


def owners(folder: Path) -> set[tuple[int, int]]:
    found = [path.lstat() for path in (folder, *folder.rglob("*"))]
    return {(status.st_uid, status.st_gid) for status in found}


@as_root
def test_what_root_makes_is_for_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    write(tmp_path / "state")
    write(tmp_path / "state", AFTER)
    assert owners(tmp_path) == {(NOBODY, NOBODY)}


@as_root
@pytest.mark.parametrize("suffix", ["json", "lock", "new"])
@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_service_cannot_make_root_change_another_file(
    tmp_path: Path, suffix: str, link: Callable[[Path, Path], None]
) -> None:
    """Who owns the folder can put a link into it; root writes beside it, or not at all."""
    service, precious = tmp_path / "state", tmp_path / "precious"
    precious.write_text("root's own")
    precious.chmod(0o600)
    (service / "pins").mkdir(parents=True)
    for folder in (service, service / "pins"):
        folder.chmod(0o700)
        os.chown(folder, NOBODY, NOBODY)
    link(precious, page_of(service).with_suffix(f".{suffix}"))
    with contextlib.suppress(PinRefused):
        write(service)
    status = precious.stat()
    assert precious.read_text() == "root's own"
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o600)


# --- a disk that fails


class Disk:
    """The calls that change a disk, in order; the one of the given number fails."""

    def __init__(self, patch: pytest.MonkeyPatch, fails: int | None = None, code: int = errno.EIO) -> None:
        self.calls: list[str] = []
        self.fails = fails
        self.code = code
        self.names: dict[int, str] = {}
        for name in ("open", "fsync", "replace", "fchown"):
            patch.setattr(os, name, self._watch(name, getattr(os, name)))
        patch.setattr(json, "dump", self._watch("write", json.dump))

    def _watch(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            if len(self.calls) == self.fails:
                self.fails = None
                raise OSError(self.code, os.strerror(self.code))
            result = call(*arguments, **options)
            if name == "open":
                self.names[result] = Path(arguments[0]).suffix or "folder"
            what = self.names.get(arguments[0], "") if name == "fsync" else ""
            self.calls.append(f"{name} {what}".strip())
            return result

        return watched


def in_order(calls: list[str], *wanted: str) -> bool:
    rest = iter(calls)
    return all(each in rest for each in wanted)


def test_the_new_page_is_on_the_disk_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        with FilePinLedger(tmp_path).page(CARD, deadline=soon()) as page:
            disk.calls.clear()
            page.write({"global": AFTER})
    assert in_order(disk.calls, "write", "fsync .new", "replace", "fsync folder")
    assert read(tmp_path) == {"global": AFTER}


def test_each_folder_that_is_made_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        with FilePinLedger(tmp_path / "a" / "b").page(CARD, deadline=soon()):
            pass
    assert disk.calls.count("fsync folder") == 3


def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many calls a second write takes."""
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        write(tmp_path, AFTER)
    return len(disk.calls)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EIO, "Let this user write"),
        (errno.EROFS, "Let this user write"),
        (errno.ENOSPC, "Make room"),
        (errno.EDQUOT, "Make room"),
        (errno.EFBIG, "Make room"),
        (errno.EMFILE, "LimitNOFILE"),
        (errno.ENFILE, "LimitNOFILE"),
    ],
    ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else "",
)
def test_whatever_fails_the_page_is_whole_and_no_pin_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    write(tmp_path)
    outcomes = set()
    for step in range(steps(tmp_path, monkeypatch)):
        write(tmp_path)
        with monkeypatch.context() as patch:
            Disk(patch, fails=step, code=code)
            with pytest.raises(PinRefused, match="no PIN is sent without it") as caught:
                write(tmp_path, AFTER)
        assert remedy in caught.value.remedy
        (record,) = read(tmp_path).values()
        outcomes.add(record)
    assert outcomes == {BEFORE, AFTER}  # after the replacement, the new one stands already


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    write(tmp_path)
    page_of(tmp_path).with_suffix(".new").write_text('{"pins": {"glo')
    assert read(tmp_path) == {"global": BEFORE}
    write(tmp_path, AFTER)
    assert read(tmp_path) == {"global": AFTER}


# --- other processes

HOLD = """
import sys, time
from pathlib import Path
from demail_hw.pin_ledger import FilePinLedger
with FilePinLedger(Path(sys.argv[1])).page(sys.argv[2], deadline=time.monotonic() + 60):
    print("held", flush=True)
    sys.stdin.readline()
"""
TRY = """
import sys, time
from pathlib import Path
from demail_hw.errors import DeadlineExceeded
from demail_hw.pin_ledger import FilePinLedger
try:
    with FilePinLedger(Path(sys.argv[1])).page(sys.argv[2], deadline=time.monotonic()):
        print("held", flush=True)
except DeadlineExceeded as error:
    print(type(error).__name__, flush=True)
"""
COUNT = """
import datetime, sys, time
from pathlib import Path
from demail_hw.interfaces import PinOperation, PinRecord, PinRecordState
from demail_hw.pin_ledger import FilePinLedger
print("ready", flush=True)
sys.stdin.readline()
with FilePinLedger(Path(sys.argv[1])).page(sys.argv[2], deadline=time.monotonic() + 60) as page:
    left = page.records["global"].retries_left if page.records else 0
    now = datetime.datetime.now(datetime.UTC)
    page.write({"global": PinRecord(PinRecordState.PENDING, PinOperation.VERIFY, now, left + 1)})
"""
FORK_IN_THE_HOLD = """
import os, sys, time
from pathlib import Path
from demail_hw.errors import PinRefused
from demail_hw.pin_ledger import FilePinLedger
reader, writer = os.pipe()
with FilePinLedger(Path(sys.argv[1])).page(sys.argv[2], deadline=time.monotonic() + 60) as page:
    child = os.fork()
    if not child:
        if sys.argv[3] == "leaves":
            try:
                page.write({})
            except PinRefused as error:
                print(error.message, flush=True)
        else:
            if sys.argv[3] != "outlives":
                os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    else:
        if sys.argv[3] == "leaves":
            os.waitpid(child, 0)
            print("held", flush=True)
            sys.stdin.readline()
        elif sys.argv[3] == "outlives":
            print(child, flush=True)
            sys.stdin.readline()
if child:
    print("left", flush=True)
    sys.stdin.readline()
"""


def is_free(folder: Path) -> bool:
    try:
        with FilePinLedger(folder).page(CARD, deadline=time.monotonic()):
            return True
    except DeadlineExceeded:
        return False


def test_a_page_is_for_one_process(tmp_path: Path) -> None:
    with Child(HOLD, str(tmp_path), CARD) as holder:
        assert holder.hear() == "held"
        assert not is_free(tmp_path)
        holder.tell()
        assert holder.wait() == 0
    assert is_free(tmp_path)


def test_who_waits_has_the_page_when_it_is_given_back(tmp_path: Path) -> None:
    had = threading.Event()

    def want() -> None:
        with FilePinLedger(tmp_path).page(CARD, deadline=soon()):
            had.set()

    with Child(HOLD, str(tmp_path), CARD) as holder:
        assert holder.hear() == "held"
        thread = threading.Thread(target=want)
        thread.start()
        assert not had.is_set()
        holder.tell()
        assert had.wait(SECONDS)
        thread.join(SECONDS)


def test_the_kernel_takes_the_page_from_a_process_that_is_killed(tmp_path: Path) -> None:
    with Child(HOLD, str(tmp_path), CARD) as holder:
        assert holder.hear() == "held"
        holder.kill()
        assert is_free(tmp_path)


def test_no_word_of_many_processes_is_lost(tmp_path: Path) -> None:
    children = [Child(COUNT, str(tmp_path), CARD) for _ in range(5)]
    for child in children:
        assert child.hear() == "ready"
    for child in children:
        child.tell()
    assert [child.wait() for child in children] == [0] * 5
    for child in children:
        with child:
            pass
    assert read(tmp_path)["global"].retries_left == 5


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_page(tmp_path: Path) -> None:
    with Child(FORK_IN_THE_HOLD, str(tmp_path), CARD, "stays") as parent:
        assert parent.hear() == "left"
        assert is_free(tmp_path)


def test_a_child_that_was_forked_meanwhile_neither_writes_nor_frees_the_page(tmp_path: Path) -> None:
    with Child(FORK_IN_THE_HOLD, str(tmp_path), CARD, "leaves") as parent:
        assert "belongs to the process that opened it" in parent.hear()
        assert parent.hear() == "held"
        assert not is_free(tmp_path)
        parent.tell()
        assert parent.hear() == "left"
        assert is_free(tmp_path)


def test_who_waited_for_a_lock_that_was_deleted_has_none(tmp_path: Path) -> None:
    """The lock that it waited for is nobody's any more; it takes the one that all others look at."""
    lock = page_of(tmp_path).with_suffix(".lock")
    with Child(HOLD, str(tmp_path), CARD) as first, Child(HOLD, str(tmp_path), CARD) as second:
        heard = {first.process.stdout: first, second.process.stdout: second}
        (ready,), _, _ = select.select(list(heard), [], [], SECONDS)
        holder = heard.pop(ready)
        (waiter,) = heard.values()
        assert holder.hear() == "held"
        lock.rename(lock.with_suffix(".deleted"))
        lock.touch(0o600)
        assert waiter.hear() == "held"
        assert not is_free(tmp_path)
        holder.tell()
        assert holder.wait() == 0
        assert not is_free(tmp_path)
        waiter.tell()
        assert waiter.wait() == 0
    assert is_free(tmp_path)


def test_a_lock_that_is_deleted_while_it_is_held_lets_no_other_process_in(tmp_path: Path) -> None:
    write(tmp_path)
    lock = page_of(tmp_path).with_suffix(".lock")
    with Child(HOLD, str(tmp_path), CARD) as holder:
        assert holder.hear() == "held"
        lock.unlink()
        with Child(TRY, str(tmp_path), CARD) as other:
            assert other.hear() == "DeadlineExceeded"
        assert not lock.exists()
        with FilePinLedger(tmp_path).page(OTHER, deadline=time.monotonic()):
            pass  # that of another card is free
        holder.tell()
        assert holder.wait() == 0
    with Child(TRY, str(tmp_path), CARD) as other:
        assert other.hear() == "held"
    assert lock.exists()
    assert read(tmp_path) == {"global": BEFORE}


def test_the_first_note_is_not_written_by_whose_lock_was_deleted(tmp_path: Path) -> None:
    """Before a card has a page nobody can tell a deleted lock from none: two may hold one, and only who holds the
    one that is there sends a PIN."""
    with FilePinLedger(tmp_path).page(CARD, deadline=soon()) as first:
        page_of(tmp_path).with_suffix(".lock").unlink()
        with FilePinLedger(tmp_path).page(CARD, deadline=time.monotonic()) as second:
            with pytest.raises(PinRefused, match="deleted the lock"):
                first.write({"global": AFTER})
            second.write({"global": AFTER})
    assert read(tmp_path) == {"global": AFTER}


def test_a_lock_that_is_deleted_while_the_first_note_is_written_lets_no_pin_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def delete_first(*arguments: Any, **folders: Any) -> None:
        page_of(tmp_path).with_suffix(".lock").unlink()
        replace(*arguments, **folders)

    monkeypatch.setattr(os, "replace", delete_first)
    with (
        FilePinLedger(tmp_path).page(CARD, deadline=soon()) as page,
        pytest.raises(PinRefused, match="deleted the lock"),
    ):
        page.write({"global": AFTER})


def test_of_many_processes_one_at_a_time_has_a_page_whose_lock_was_deleted(tmp_path: Path) -> None:
    write(tmp_path, dataclasses.replace(BEFORE, retries_left=0))
    with Child(HOLD, str(tmp_path), CARD) as holder:
        assert holder.hear() == "held"
        children = [Child(COUNT, str(tmp_path), CARD) for _ in range(3)]
        for child in children:
            assert child.hear() == "ready"
        page_of(tmp_path).with_suffix(".lock").unlink()
        for child in children:
            child.tell()
        holder.tell()
        assert [child.wait() for child in children] == [0] * 3
        for child in children:
            with child:
                pass
    assert read(tmp_path)["global"].retries_left == 3


def test_a_lock_that_is_deleted_before_it_is_had_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = page_of(tmp_path).with_suffix(".lock")
    locks = fcntl.flock
    deletions = iter([True, False])

    def delete_first(descriptor: int, operation: int) -> None:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if is_file and operation & fcntl.LOCK_EX and next(deletions, False):
            lock.unlink()
        locks(descriptor, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", delete_first)
        with FilePinLedger(tmp_path).page(CARD, deadline=soon()):
            assert not is_free(tmp_path)


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "another one"])
def test_no_pin_is_sent_by_whose_lock_was_deleted_but_what_became_of_one_is_noted(
    tmp_path: Path, again: bool
) -> None:
    lock = page_of(tmp_path).with_suffix(".lock")
    with FilePinLedger(tmp_path).page(CARD, deadline=soon()) as page:
        lock.unlink()
        if again:
            lock.touch()
        with pytest.raises(PinRefused, match="deleted the lock"):
            page.write({"global": AFTER})
        assert read(tmp_path) == {}
        page.write({"global": BEFORE})
    assert read(tmp_path) == {"global": BEFORE}


def test_the_child_of_a_killed_process_keeps_the_page_and_the_error_says_where_to_look(tmp_path: Path) -> None:
    with Child(FORK_IN_THE_HOLD, str(tmp_path), CARD, "outlives") as parent:
        child = int(parent.hear())
        try:
            parent.kill()
            with pytest.raises(DeadlineExceeded) as caught:
                FilePinLedger(tmp_path).page(CARD, deadline=time.monotonic()).__enter__()
        finally:
            os.kill(child, signal.SIGKILL)
    lock = page_of(tmp_path).with_suffix(".lock")
    assert f"a child of one that was killed, holds {lock}" in caught.value.remedy
    with FilePinLedger(tmp_path).page(CARD, deadline=soon()):
        pass


# --- a system without flock(2)

WITHOUT_FLOCK = """
import sys
from pathlib import Path
sys.modules["fcntl"] = None
import demail_hw, demail_hw.cli.main
from demail_hw.errors import ConfigurationError
from demail_hw.pin_ledger import FilePinLedger
ledger = FilePinLedger(Path(sys.argv[1]))
for use in (lambda: ledger.records("1"), lambda: ledger.page("1", deadline=0).__enter__()):
    try:
        use()
    except ConfigurationError as error:
        print(error.remedy)
"""


def test_a_system_without_flock_imports_it_and_sends_no_pin(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FLOCK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert [line.split("(")[-1] for line in done.stdout.splitlines()] == ["ledger=)."] * 2
    assert list(tmp_path.iterdir()) == []
