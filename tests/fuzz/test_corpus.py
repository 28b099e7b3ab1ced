"""Every decoder takes anything: the corpus that fuzzing begins with and has found, and what Hypothesis makes up."""

import importlib.util
import pathlib
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

HERE = pathlib.Path(__file__).parent


def load_targets() -> ModuleType:
    """The table beside this file; it is no package."""
    spec = importlib.util.spec_from_file_location("fuzz_targets", HERE / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TARGETS = load_targets().TARGETS
CORPUS = {name: tuple(sorted((HERE / "corpus" / name).iterdir())) for name in TARGETS}
INPUTS = [(name, path) for name, paths in CORPUS.items() for path in paths]


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {path.name for path in (HERE / "corpus").iterdir()} == set(TARGETS)
    assert all(CORPUS.values())


@pytest.mark.parametrize(("name", "path"), INPUTS, ids=[f"{name}-{path.name}" for name, path in INPUTS])
def test_what_is_in_the_corpus(name: str, path: pathlib.Path) -> None:
    TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=300))
def test_any_bytes(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_a_good_input_with_wrong_bytes(name: str, data: st.DataObject) -> None:
    mutant = bytearray(data.draw(st.sampled_from(CORPUS[name])).read_bytes())
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=4)):
        mutant[place % len(mutant)] = byte
    TARGETS[name](bytes(mutant))
