"""Opening a card to be managed."""

from typing import Any

import pytest

from demail_hw.card_manager import open_manager
from demail_hw.pin_ledger import MemoryPinLedger
from demail_hw.pin_sources import CallablePinSource
from demail_hw.tcos.layout import PinName


@pytest.mark.parametrize(("kept", "attended"), [(1, False), (0, False), (-1, False), (-1, True)])
def test_a_program_does_not_get_the_last_tries(kept: int, attended: bool) -> None:
    opened = open_manager("sim:netkey3", kept=kept, attended=attended, ledger=MemoryPinLedger())
    with pytest.raises(ValueError, match="are for a person at"), opened:
        pytest.fail("the card was opened")


@pytest.mark.parametrize(("kept", "attended"), [(2, False), (3, False), (1, True), (0, True)])
def test_a_person_gets_them(kept: int, attended: bool) -> None:
    with open_manager("sim:netkey3", kept=kept, attended=attended, ledger=MemoryPinLedger()) as manager:
        assert manager.session.serial


@pytest.mark.parametrize(
    ("name", "source"), [("global", CallablePinSource(lambda: b"123456")), (PinName.GLOBAL, "file:/etc/demail/pin")]
)
def test_text_for_a_pin_or_for_its_source(name: Any, source: Any) -> None:
    ledger = MemoryPinLedger()
    with open_manager("sim:netkey3", ledger=ledger) as manager, pytest.raises(TypeError, match="PIN"):
        manager.pins.verify(name, source)
    assert ledger.records(manager.session.serial) == {}
