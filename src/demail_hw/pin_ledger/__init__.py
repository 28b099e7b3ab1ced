"""The ledgers of the PIN guard (:class:`~demail_hw.interfaces.PinLedger`): on disk, or in memory for simulated cards.

On disk there are two files for a card, both only for their owner: ``CARD.json`` with what is known of each of its
PINs, and ``CARD.lock``, which whoever reads the counter and sends a PIN holds locked (flock(2): the kernel lets it go
with the process). One that is deleted while it is held
lets nobody else in, for the folder is locked too; but whoever deletes the first file as well lets them in. The first
file is written anew each time, synchronised with the disk, and then put in the place of the old one.

Nothing in them tells a PIN, or lets one be guessed.
"""

from demail_hw.pin_ledger.in_memory import MemoryPinLedger
from demail_hw.pin_ledger.on_disk import FilePinLedger
from demail_hw.pin_ledger.place import STATE_VARIABLE, ledger_for, state_directory

__all__ = ["STATE_VARIABLE", "FilePinLedger", "MemoryPinLedger", "ledger_for", "state_directory"]
