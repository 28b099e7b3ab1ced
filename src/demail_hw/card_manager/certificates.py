"""The certificates on a card: what is in which file, out of it, into it, and away."""

from demail_hw.card_manager.certificate_entries import CertificateEntry, CertificateState
from demail_hw.card_manager.file_writing import FileFate, FileWriter, Progress
from demail_hw.card_manager.write_planning import WritePlanner
from demail_hw.card_manager.write_plans import KeyUse, WritePlan
from demail_hw.errors import CertificateError, PinRefused
from demail_hw.interfaces import Deadline, PinLedger
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.pin_guard import KEPT_TRIES, PinGuard
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import CertificateFile, PinName, PinSlot

__all__ = ["CardCertificates", "CertificateEntry", "CertificateState", "KeyUse", "WritePlan"]


class CardCertificates(WritePlanner):
    """The certificates of an open card: to look at, to plan, and to write.

    ``kept``: tries of the PIN that are never spent. ``attended``: a person types the PIN. Every method raises,
    beside what it says, any :class:`~demail_hw.errors.HardwareError` on the way to the card.
    """

    def __init__(
        self, session: CardSession, ledger: PinLedger, *, kept: int = KEPT_TRIES, attended: bool = False
    ) -> None:
        super().__init__(session, ledger.state_dir)
        self._ledger = ledger
        self._kept = kept
        self._attended = attended

    def check(self, plan: WritePlan, *, which: PinName = PinName.GLOBAL) -> None:
        """Raise what :meth:`carry_out` would before it asks for the PIN. Sends none and spends no try."""
        pin = self._pin(plan.file, which)
        if plan.writes:
            with self._session.transaction() as deadline:
                self._guard(None).check(self._card, pin, deadline=deadline)

    def carry_out(
        self,
        plan: WritePlan,
        source: PinSource,
        *,
        which: PinName = PinName.GLOBAL,
        progress: Progress | None = None,
    ) -> None:
        """Verify the PIN, once, write what the plan says, and read it back. Nothing is sent where nothing is to do.

        Errors: :class:`~demail_hw.errors.PinRefused` for a PIN that does not open the file's application; those of
        the PIN guard; whatever interrupts the writing: its text says what the file holds then.
        """
        pin = self._pin(plan.file, which)
        if not plan.writes:
            return
        try:
            self._carry_out(plan, self._guard(source), pin, progress)
        except BaseException:
            self._session.suspect()
            raise

    def _guard(self, source: PinSource | None) -> PinGuard:
        return PinGuard(
            source,
            serial=self._session.serial,
            ledger=self._ledger,
            kept=self._kept,
            attended=self._attended,
            uri=self._session.uri,
        )

    def _carry_out(self, plan: WritePlan, guard: PinGuard, pin: PinSlot, progress: Progress | None) -> None:
        with self._session.transaction() as deadline:
            guard.check(self._card, pin, deadline=deadline)
        with guard.ask(pin) as secret, self._session.transaction() as deadline:
            guard.verify(self._card, pin, secret, deadline=deadline)
            self._write(plan, progress, deadline)

    def _write(self, plan: WritePlan, progress: Progress | None, deadline: Deadline) -> None:
        fate = FileFate(plan.file.name, "erase it" if plan.certificate is None else "import the certificate")
        with fate.telling():
            file = self._card.open_file(plan.file.application, plan.file.identifier, deadline=deadline)
        if file.size != plan.size:
            raise CertificateError(f"{plan.file.name} is not as long as it was; nothing was written.")
        FileWriter(file, fate, progress).run(plan.writes, deadline=deadline)

    def _pin(self, file: CertificateFile, which: PinName) -> PinSlot:
        able = self._profile.pins_that_open(file.application)
        found = next((pin for pin in able if pin.name is which), None)
        if found is None:
            names = ", ".join(pin.name.value for pin in able)
            raise PinRefused(
                f"The PIN {which.value} lets nobody write {file.name}; nothing was sent.",
                remedy=f"Name another PIN (which= or --which): {names}.",
            )
        return found
