"""Memory for a secret: one page that the kernel does not swap, does not dump, and wipes in a forked process."""

import logging
import mmap
import os
import sys
from collections.abc import Mapping
from typing import Final

__all__ = ["secret_page"]

_LOG = logging.getLogger(__name__)
_GENERIC_MAP_LOCKED: Final = 0x2000
# uname(2)'s machine -> MAP_LOCKED of its asm/mman.h, which Python's mmap does not name. To a machine that is not here
# the number may mean something else.
_MAP_LOCKED: Final[Mapping[str, int]] = {
    **dict.fromkeys(("x86_64", "i386", "i486", "i586", "i686"), _GENERIC_MAP_LOCKED),
    **dict.fromkeys(("aarch64", "armv6l", "armv7l", "armv8l"), _GENERIC_MAP_LOCKED),
    **dict.fromkeys(("riscv64", "s390x", "loongarch64"), _GENERIC_MAP_LOCKED),
    **dict.fromkeys(("ppc64le", "ppc64"), 0x80),
}
# What else is asked for -> MADV_DONTDUMP, MADV_WIPEONFORK (madvise(2), since Linux 3.4 and 4.14).
_ADVICE: Final[Mapping[str, int]] = {"kept out of core dumps": 16, "wiped in forked processes": 18}


def secret_page() -> mmap.mmap:
    """A page of zeros for a secret, of ``mmap.PAGESIZE`` bytes. It is unmapped when nobody refers to it any more.

    What of this the system refuses is told in one warning of the log: the page is good without it too.
    """
    page = _locked_page()
    missing = [] if page else ["locked (see RLIMIT_MEMLOCK; in a systemd unit LimitMEMLOCK=)"]
    page = page or mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    missing += [what for what, advice in _ADVICE.items() if not _advised(page, advice)]
    if missing:
        _LOG.warning("The memory for the PIN cannot be %s here.", ", nor ".join(missing))
    return page


def _locked_page() -> mmap.mmap | None:
    flag = _MAP_LOCKED.get(os.uname().machine) if sys.platform == "linux" else None
    if flag is None:
        return None
    try:
        return mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flag)
    except OSError:  # EPERM or EAGAIN: more than RLIMIT_MEMLOCK
        return None


def _advised(page: mmap.mmap, advice: int) -> bool:
    if sys.platform != "linux":
        return False  # the numbers are Linux's own
    try:
        page.madvise(advice)
    except OSError:
        return False
    return True
