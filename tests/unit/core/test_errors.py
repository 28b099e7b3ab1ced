import inspect
import pickle

import pytest

from demail_hw import errors

KINDS = [getattr(errors, name) for name in errors.__all__ if issubclass(getattr(errors, name), errors.HardwareError)]
EXTRA = {
    errors.PinIncorrect: {"retries_left": 2, "status": 0x63C2, "command": "VERIFY"},
    errors.SlotError: {"code": 0xFB},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_carries_its_facts_and_survives_pickling(kind: type[errors.HardwareError]) -> None:
    error = kind("Something happened.", **EXTRA.get(kind, {}))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.__dict__ == error.__dict__
    assert str(again) == str(error)
    assert f"[{error.layer.value}]" in str(error)
    assert inspect.getdoc(kind)


def test_text_has_sentence_layer_doubt_and_remedy() -> None:
    error = errors.DeviceLost("The server closed the connection.", remedy="Check the cable.")
    assert str(error) == (
        "The server closed the connection. [transport] (whether the card acted is unknown) Remedy: Check the cable."
    )


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    text = inspect.getdoc(errors)
    assert text is not None
    for kind in KINDS:
        assert kind.__name__ in text


def test_no_name_shadows_a_builtin() -> None:
    import builtins

    assert not [name for name in errors.__all__ if hasattr(builtins, name)]
