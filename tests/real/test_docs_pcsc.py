"""What the documents show of PC/SC, with the simulated card in the virtual reader, as they say."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from demail_hw_simulators.card.personalities import netkey3
from documents import ALL_BLOCKS, DOCUMENTS, PCSC_BLOCKS, blocks, name, run_blocks
from pcsc_client import require_pyscard
from pcscd import READERS, SECONDS, PrivatePcscd


@pytest.fixture(autouse=True)
def _card(pytestconfig: pytest.Config, pcscd: PrivatePcscd) -> None:
    require_pyscard(pytestconfig)
    pcscd.slot(netkey3())


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if any(blocks(path, PCSC_BLOCKS))], ids=name)
@pytest.mark.filterwarnings("ignore:the PIN comes from the environment:RuntimeWarning")
def test_python_blocks_run(path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMAIL_PIN", "123456")
    run_blocks(path, ALL_BLOCKS)


def run(*words: str) -> dict[str, object]:
    command = [sys.executable, "-m", "demail_hw.cli", *words, "--json"]
    done = subprocess.run(command, env=os.environ, capture_output=True, timeout=SECONDS, check=True)
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("words", [["readers"], ["readers", "pcsc:"]], ids=" ".join)
def test_readers_lists_those_of_pcsc(words: list[str]) -> None:
    readers = run(*words)["readers"]
    assert isinstance(readers, list)
    cards = {reader["name"]: reader["card"] for reader in readers if reader["address"].startswith("pcsc:")}
    assert cards == dict(zip(READERS, (True, False), strict=True))


def test_pcsc_alone_is_the_reader_with_the_card() -> None:
    reader = run("card", "info", "pcsc:")["reader"]
    assert isinstance(reader, dict)
    assert reader["name"] == READERS[0]
