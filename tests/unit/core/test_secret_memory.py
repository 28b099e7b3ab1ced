"""The page that a PIN lies in, as the kernel sees it."""

import logging
import mmap
import os
import re
import subprocess
import sys

import pytest

from demail_hw import secret_memory
from demail_hw.secret_memory import secret_page
from demail_hw.secrets import Pin
from pin_hunt import memory_flags

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells what a page is in /proc")
LOCKED, NOT_DUMPED, WIPED_IN_A_CHILD = "lo", "dd", "wf"
"""VmFlags (proc(5), /proc/PID/smaps)."""

# Root may lock what it likes; so the child becomes somebody else. It prints what the log says, and the page's flags.
WITHOUT_LEAVE_TO_LOCK = """
import ctypes, logging, os, resource, sys
from demail_hw.pin_sources import parse_pin_source
from pin_hunt import memory_flags

logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
with parse_pin_source("fd:" + sys.argv[1]).read() as pin:
    assert bytes(pin.buffer) == b"123456"
    print(*memory_flags("self", ctypes.addressof(ctypes.c_char.from_buffer(pin.buffer))))
"""


def address_of(page: mmap.mmap) -> int:
    import ctypes  # forbidden in the package; here it only looks

    return ctypes.addressof(ctypes.c_char.from_buffer(page))


@LINUX
def test_page_is_locked_not_dumped_and_wiped_in_a_child() -> None:
    page = secret_page()
    assert len(page) == mmap.PAGESIZE
    assert memory_flags("self", address_of(page)) >= {LOCKED, NOT_DUMPED, WIPED_IN_A_CHILD}


@LINUX
def test_a_forked_process_reads_zeros() -> None:
    page = secret_page()
    page[:6] = b"123456"
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, page[:6])
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 6) == bytes(6)
    os.close(reading)
    os.close(writing)
    assert page[:6] == b"123456"


@LINUX
def test_page_is_unmapped_when_the_last_view_is_gone() -> None:
    page = secret_page()
    address = address_of(page)
    pin = Pin.in_place(memoryview(page)[:6])
    del page
    view = pin.buffer
    view[:] = b"123456"
    pin.wipe()
    assert bytes(view) == bytes(6)
    assert LOCKED in memory_flags("self", address)
    del view
    with pytest.raises(AssertionError, match="not mapped"):
        memory_flags("self", address)


@LINUX
def test_where_nothing_may_be_locked_the_pin_is_read_all_the_same_and_the_log_says_it() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"123456\n")
    os.close(writing)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LEAVE_TO_LOCK, str(reading)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        pass_fds=(reading,),
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(reading)
    assert done.returncode == 0, done.stderr
    warning, flags = done.stdout.splitlines()
    assert re.fullmatch(r"WARNING The memory for the PIN cannot be locked .*RLIMIT_MEMLOCK.*", warning)
    assert LOCKED not in flags.split()
    assert {NOT_DUMPED, WIPED_IN_A_CHILD} <= set(flags.split())


def test_a_system_that_has_none_of_it_gives_a_page_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(secret_memory.sys, "platform", "plan9")
    page = secret_page()
    page[:6] = b"123456"
    assert page[:6] == b"123456"
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert all(word in record.getMessage() for word in ("locked", "core dumps", "forked"))


@LINUX
def test_a_machine_whose_numbers_are_not_known_gets_no_wrong_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine = os.uname_result(("Linux", "host", "7.0", "#1", "pdp11"))
    monkeypatch.setattr(secret_memory.os, "uname", lambda: machine)
    page = secret_page()
    assert memory_flags("self", address_of(page)) >= {NOT_DUMPED, WIPED_IN_A_CHILD}
    assert "locked" in caplog.text
    assert "core dumps" not in caplog.text
