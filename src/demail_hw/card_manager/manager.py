"""An open card with everything that one does to it by hand."""

import contextlib
from collections.abc import Iterator, Sequence

from cryptography import x509

from demail_hw.address import Address
from demail_hw.card_manager.certificates import CardCertificates
from demail_hw.card_manager.pins import PinManager
from demail_hw.card_manager.requests import request_certificate
from demail_hw.identity import KeyRole
from demail_hw.interfaces import PinLedger, Timeouts
from demail_hw.iso7816.trace import Tracer
from demail_hw.keys.bare_key import bare_private_key
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.pin_guard import KEPT_TRIES
from demail_hw.pin_ledger import ledger_for
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import PinName

__all__ = ["CardManager", "open_manager"]


class CardManager:
    """``session``: the open card. ``pins``: see :class:`~demail_hw.card_manager.pins.PinManager`. ``certificates``:
    see :class:`~demail_hw.card_manager.certificates.CardCertificates`."""

    def __init__(self, session: CardSession, ledger: PinLedger, *, kept: int, attended: bool) -> None:
        self.session = session
        self.pins = PinManager(session, ledger, kept=kept, attended=attended)
        self.certificates = CardCertificates(session, ledger, kept=kept, attended=attended)
        self._ledger = ledger
        self._kept = kept
        self._attended = attended

    def request(
        self,
        role: KeyRole,
        subject: x509.Name,
        source: PinSource,
        *,
        names: Sequence[x509.GeneralName] = (),
        which: PinName = PinName.GLOBAL,
    ) -> x509.CertificateSigningRequest:
        """Request a certificate for a key of the card (PKCS #10), which needs none yet: one signature by the key.

        ``subject``, ``names``: as :func:`~demail_hw.card_manager.requests.parse_subject` and
        :func:`~demail_hw.card_manager.general_names.alternative_names` make them.

        Errors: :class:`~demail_hw.errors.KeyNotFound` if the PIN opens no such key, or if nothing on the card tells
        its public half; :class:`~demail_hw.errors.CertificateError` if that is broken; those of the PIN guard.
        """
        key = bare_private_key(
            self.session,
            role,
            source,
            ledger=self._ledger,
            which=which,
            kept=self._kept,
            attended=self._attended,
        )
        return request_certificate(key, subject, names)


@contextlib.contextmanager
def open_manager(
    uri: Address | str,
    *,
    kept: int = KEPT_TRIES,
    attended: bool = False,
    timeouts: Timeouts | None = None,
    ledger: PinLedger | None = None,
    tracer: Tracer | None = None,
) -> Iterator[CardManager]:
    """Open the card that an address means, to the end of the ``with`` block.

    ``kept``: tries of a PIN that are never spent; fewer than two only where ``attended``: a person types the PINs.
    ``ledger``, ``tracer``: as for :func:`demail_hw.open_provider`.

    Errors: ``ValueError`` for a malformed address, and for tries that are not for a program; any
    :class:`~demail_hw.errors.HardwareError` on the way.
    """
    if kept < (0 if attended else KEPT_TRIES):
        # A loop in a program with a wrong PIN would block the card.
        raise ValueError(f"kept={kept}: the last {KEPT_TRIES} tries are for a person at the keyboard (attended=True)")
    address = Address.parse(uri) if isinstance(uri, str) else uri
    book = ledger or ledger_for(address)
    with CardSession.open(address, timeouts=timeouts, tracer=tracer) as session:
        yield CardManager(session, book, kept=kept, attended=attended)
