"""A program that signs with a card, as a service does, and that can be struck by a signal at its worst moment.

``python pin_client.py JSON``: with ``address``, ``pin`` and ``state`` (the ledger's folder). It says what became of
each signature in a line of JSON. ``strikes``: ``[signal, "before" or "after", which note]``: it strikes itself when
it writes into the ledger; ``PAUSE`` in the place of a signal: ten minutes pass for it. ``command``: seconds. Before
each signature but the first (with ``waits`` before that too) it waits for a line, whose word names what to do first.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from demail_hw import KeyRole, open_provider
from demail_hw.errors import HardwareError
from demail_hw.interfaces import Deadline, KeyProvider, PinPage, PinRecord, Timeouts
from demail_hw.pin_ledger import FilePinLedger

_PAUSE_SECONDS: Final = 600.0


class _StruckPage:
    def __init__(self, page: PinPage, strike: "_StruckLedger") -> None:
        self._page = page
        self._strike = strike

    @property
    def records(self) -> Mapping[str, PinRecord]:
        return self._page.records

    def write(self, records: Mapping[str, PinRecord | None]) -> None:
        self._strike.when("before")
        self._page.write(records)
        self._strike.when("after")


class _StruckLedger(FilePinLedger):
    def __init__(self, directory: Path, strike: Callable[[], None], moment: str, note: int) -> None:
        super().__init__(directory)
        self._strike = strike
        self._moment = moment
        self._left = note

    @contextlib.contextmanager
    def page(self, card: str, *, deadline: Deadline) -> Iterator[Any]:
        with super().page(card, deadline=deadline) as page:
            yield _StruckPage(page, self)

    def when(self, moment: str) -> None:
        if moment == self._moment:
            self._left -= 1
            if not self._left:
                self._strike()


def _strike(name: str) -> Callable[[], None]:
    if name == "PAUSE":
        return _pause
    return lambda: os.kill(os.getpid(), signal.Signals[name])


def _pause() -> None:
    """What a process that was stopped sees afterwards: of everything, only the time is another."""
    before = time.monotonic
    time.monotonic = lambda: before() + _PAUSE_SECONDS


def _sign(provider: KeyProvider) -> None:
    key = cast("RSAPrivateKey", provider.identity(KeyRole.SIGNATURE).private_key)
    signature = key.sign(b"De-Mail", PKCS1v15(), SHA256())
    key.public_key().verify(signature, b"De-Mail", PKCS1v15(), SHA256())


def _say(**facts: Any) -> None:
    sys.stdout.write(json.dumps({"pid": os.getpid(), **facts}) + "\n")
    sys.stdout.flush()


def _report(provider: KeyProvider) -> None:
    try:
        _sign(provider)
    except HardwareError as error:
        _say(did=type(error).__name__, message=error.message, outcome=error.outcome.value, remedy=error.remedy)
    except KeyboardInterrupt:
        _say(did="KeyboardInterrupt")
    else:
        _say(did="signed")


def _fork() -> None:
    """From here on there are two; the parent waits until the child has reported and ended."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)


def _exhaust_files() -> None:
    """Not one more file can be opened."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))


def _fill_disk() -> None:
    """Not one more byte can be written to a file; Python ignores SIGXFSZ."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))


_FIRST = {"fork": _fork, "exhaust files": _exhaust_files, "fill disk": _fill_disk, "go": lambda: None}


def main(order: dict[str, Any]) -> None:
    process = os.getpid()
    state = Path(order["state"])
    if "strikes" in order:
        name, moment, note = order["strikes"]
        ledger: FilePinLedger = _StruckLedger(state, _strike(name), moment, note)
    else:
        ledger = FilePinLedger(state)
    timeouts = Timeouts(connect=20.0, command=order.get("command", 30.0))
    try:
        provider = open_provider(order["address"], pin=order["pin"].encode, ledger=ledger, timeouts=timeouts)
    except HardwareError as error:
        _say(did=type(error).__name__, message=error.message, outcome=error.outcome.value)
        return
    with provider:
        if order.get("waits"):
            _say(did="opened")
            _FIRST[sys.stdin.readline().strip()]()
        _report(provider)
        while os.getpid() == process and (word := sys.stdin.readline().strip()):
            _FIRST[word]()
            _report(provider)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
