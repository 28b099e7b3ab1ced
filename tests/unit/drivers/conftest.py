"""A PC/SC service that does what a test says."""

import threading
from collections.abc import Iterator

import pytest

from fake_scard import FakeScard


@pytest.fixture
def scard() -> Iterator[FakeScard]:
    """At the end nothing is open, and no thread is left."""
    before = set(threading.enumerate())
    fake = FakeScard()
    yield fake
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive()
    assert (fake.contexts, fake.cards) == (set(), {})
