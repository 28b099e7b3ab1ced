"""What a process has more of than before: descriptors, threads, memory."""

import contextlib
import gc
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["counting_objects", "no_growth", "resident_bytes"]

_SECONDS: Final = 60
_PAGE_FIELD: Final = "VmRSS:"


def _descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def resident_bytes() -> int:
    """RSS (proc(5), /proc/PID/status)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(_PAGE_FIELD))
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def no_growth(*, most: int) -> Iterator[None]:
    """At the end of the block there are no more descriptors and threads than at its beginning, and at most so many
    bytes of memory more. Something of the kind has been done before, so that caches are full."""
    gc.collect()
    threads, descriptors, memory = set(threading.enumerate()), len(_descriptors()), resident_bytes()
    yield
    gc.collect()
    # The thread of a server that served the last connection may be about to end.
    for thread in set(threading.enumerate()) - threads:
        thread.join(_SECONDS)
    assert set(threading.enumerate()) <= threads
    assert len(_descriptors()) <= descriptors
    grown = resident_bytes() - memory
    assert grown <= most, f"{grown} bytes more"


@contextlib.contextmanager
def counting_objects() -> Iterator[Callable[[], int]]:
    """Gives a function that tells how many bytes the objects of Python have that were made since (tracemalloc).

    Slow. What takes the place of an older object counts as more: do something of the kind before the first count.
    """

    def count() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        yield count
    finally:
        tracemalloc.stop()
