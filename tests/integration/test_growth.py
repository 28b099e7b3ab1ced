"""F94: descriptors, threads and memory are no more after 10^4 openings of a card, and after 10^6 signatures.

In a few minutes, and so slow; with fewer of them, each object counted, in every run.
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from demail_hw import KeyRole, open_provider
from demail_hw.errors import PinRefused
from demail_hw.interfaces import KeyProvider, Timeouts
from demail_hw.pin_ledger import FilePinLedger
from growth import counting_objects, no_growth
from pin_faults import RIGHT, SECONDS, Bench, same_card, serving

WARM_UP = 200
ROUNDS = 3
A_LEAK = 256
"""In bytes, of one opening or signature: less than what is in them, more than what the allocator's chance leaves."""
ROOM = 8 << 20
"""In bytes: what malloc(3) may keep."""


@pytest.fixture
def bench(state_dir: Path) -> Iterator[Bench]:
    with serving(state_dir, *same_card(1)) as opened:
        yield opened


def sign(provider: KeyProvider) -> None:
    key = cast("RSAPrivateKey", provider.identity(KeyRole.SIGNATURE).private_key)
    assert key.sign(b"De-Mail", PKCS1v15(), SHA256())


def open_and_close(bench: Bench, times: int) -> None:
    """Every second time nothing is signed, for the PIN is empty."""
    for number in range(times):
        bench.wait_until_free()
        with open_provider(
            bench.address,
            pin=(RIGHT if number % 2 else "").encode,
            ledger=FilePinLedger(bench.folder),
            timeouts=Timeouts(connect=SECONDS, command=SECONDS),
        ) as provider:
            if number % 2:
                sign(provider)
            else:
                with pytest.raises(PinRefused):
                    sign(provider)
    bench.wait_until_free()
    assert bench.card.verifies == times // 2
    bench.card.sent.clear()


def growth_of_objects(act: Callable[[], None]) -> int:
    """By how many bytes it makes the objects of Python grow each time. Once does not count, and of several times the
    least: what fills a cache does so once, but what is left behind is so each time."""
    with counting_objects() as count:
        act()
        sizes = [count()]
        for _ in range(ROUNDS):
            act()
            sizes.append(count())
    return min(after - before for before, after in itertools.pairwise(sizes))


def test_f94_nothing_is_left_of_400_openings(bench: Bench) -> None:
    times = 100
    open_and_close(bench, times)
    with no_growth(most=ROOM):
        assert growth_of_objects(lambda: open_and_close(bench, times)) < times * A_LEAK


def test_f94_nothing_is_left_of_2000_signatures(bench: Bench) -> None:
    times = 500

    def use() -> None:
        for _ in range(times):
            sign(provider)
        bench.card.sent.clear()

    with open_provider(bench.address, pin=RIGHT.encode, ledger=FilePinLedger(bench.folder)) as provider:
        use()
        with no_growth(most=ROOM):
            assert growth_of_objects(use) < times * A_LEAK


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_f94_nothing_is_left_of_10_000_openings(bench: Bench) -> None:
    open_and_close(bench, WARM_UP)
    with no_growth(most=ROOM):
        open_and_close(bench, 10_000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_f94_nothing_is_left_of_1_000_000_signatures() -> None:
    with open_provider("sim:netkey3", pin=RIGHT.encode) as provider:
        for _ in range(1000):
            sign(provider)
        with no_growth(most=ROOM):
            for _ in range(1_000_000):
                sign(provider)


# --- Is it seen?


def test_a_descriptor_that_is_left_is_seen() -> None:
    with pytest.raises(AssertionError), no_growth(most=ROOM):
        left = os.open("/", os.O_RDONLY)
    os.close(left)


def test_a_thread_that_is_left_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("growth._SECONDS", 0)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    try:
        with pytest.raises(AssertionError), no_growth(most=ROOM):
            thread.start()
    finally:
        end.set()
        thread.join()


def test_memory_that_is_left_is_seen() -> None:
    with pytest.raises(AssertionError, match="bytes more"), no_growth(most=ROOM):
        left = bytearray(b"x" * 4 * ROOM)
    assert left


def test_objects_that_are_left_are_seen() -> None:
    left: list[bytes] = []
    assert growth_of_objects(lambda: left.extend(bytes(A_LEAK) for _ in range(100))) > 100 * A_LEAK


def test_what_is_made_once_is_not_taken_for_what_is_left() -> None:
    left: list[bytes] = []
    assert growth_of_objects(lambda: left.append(bytes(100 * A_LEAK)) if len(left) < ROUNDS else None) < A_LEAK
