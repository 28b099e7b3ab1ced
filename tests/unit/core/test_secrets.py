import copy
import pickle
import traceback
from pathlib import Path

import pytest

from demail_hw.interfaces import PinOperation
from demail_hw.secrets import _GUARD_KEY, Pin, PinPermit


def test_a_pin_redacts_itself() -> None:
    pin = Pin(b"123456")
    assert "123456" not in f"{pin} {pin!r} {[pin]}"
    with pytest.raises(TypeError):
        pickle.dumps(pin)
    with pytest.raises(TypeError):
        copy.deepcopy(pin)
    with pytest.raises(TypeError):
        _ = pin == Pin(b"123456")
    with pytest.raises(TypeError):
        hash(pin)


def test_a_pin_is_wiped_where_it_lies() -> None:
    store = bytearray(b"123456")
    with Pin(store) as pin:
        assert bytes(pin.buffer) == b"123456"
        assert len(pin) == 6
    assert store == bytes(6)
    with pytest.raises(ValueError, match="wiped"):
        _ = pin.buffer


def test_a_pin_in_place_is_not_copied_and_is_wiped_there() -> None:
    memory = bytearray(b"123456 and more")
    with Pin.in_place(memoryview(memory)[:6]) as pin:
        assert len(pin) == 6
        view = pin.buffer
        memory[0] = ord("9")
        assert bytes(view) == b"923456"
    assert memory == bytes(6) + b" and more"
    assert bytes(view) == bytes(6)  # whoever still has a view of it sees the zeros
    assert len(pin) == 0
    with pytest.raises(ValueError, match="wiped"):
        _ = pin.buffer
    pin.wipe()  # once more is allowed


def test_any_other_buffer_is_copied() -> None:
    for given in (b"123456", memoryview(bytearray(b"123456"))):
        Pin(given).wipe()
        assert bytes(given) == b"123456"


def test_a_permit_is_good_once_and_only_the_guard_issues_it() -> None:
    with pytest.raises(TypeError, match="guard"):
        PinPermit(object(), PinOperation.CHANGE, 0, (Pin(b"123456"),))
    permit = PinPermit(_GUARD_KEY, PinOperation.CHANGE, 0x81, (Pin(b"old123"), Pin(b"new123")))
    assert repr(permit) == "<PinPermit to change 0x81>"
    with pytest.raises(RuntimeError, match="nothing else"):
        permit.spend(PinOperation.VERIFY)
    assert not permit.spent
    assert [bytes(part) for part in permit.spend(PinOperation.CHANGE)] == [b"old123", b"new123"]
    with pytest.raises(RuntimeError, match="one command"):
        permit.spend(PinOperation.CHANGE)


def test_nobody_but_the_guard_names_its_key() -> None:
    root = Path(__file__).parents[3]
    users = {
        path.relative_to(root).as_posix()
        for folder in ("src", "drivers", "simulators", "tests")
        for path in (root / folder).rglob("*.py")
        if "_GUARD_KEY" in path.read_text()
    }
    assert users == {
        "src/demail_hw/secrets.py",
        "src/demail_hw/keys/pin_guard.py",
        "tests/support/permits.py",  # for the rooms under the guard
        "tests/unit/core/test_secrets.py",
    }


def test_a_traceback_with_locals_shows_no_pin() -> None:
    def fails(pin: Pin) -> None:
        raise RuntimeError("no")

    try:
        fails(Pin(b"918273"))
    except RuntimeError as error:
        text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "<Pin>" in text
    assert "918273" not in text.replace('b"918273"', "")
