"""A key of a card that has no certificate yet: to request one."""

from demail_hw.errors import KeyNotFound
from demail_hw.identity import KeyRole, PrivateKey
from demail_hw.interfaces import PinLedger
from demail_hw.keys.card_key import CardKey
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.certificates import read_public_key
from demail_hw.keys.key_selection import opens_no, pin_of
from demail_hw.keys.pin_guard import KEPT_TRIES, PinGuard
from demail_hw.keys.private_keys import card_private_key
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import PinName

__all__ = ["bare_private_key"]


def bare_private_key(
    session: CardSession,
    role: KeyRole,
    source: PinSource | None,
    *,
    ledger: PinLedger,
    which: PinName = PinName.GLOBAL,
    kept: int = KEPT_TRIES,
    attended: bool = False,
) -> PrivateKey:
    """A key of an open card without its certificate, which it need not have yet: to request one.

    ``which`` and ``ledger`` as in :func:`~demail_hw.keys.provider.open_provider`; ``kept`` and ``attended`` as for a
    :class:`~demail_hw.keys.pin_guard.PinGuard`.

    Errors: :class:`~demail_hw.errors.KeyNotFound` if the PIN opens no such key, or if nothing on the card tells its
    public half; :class:`~demail_hw.errors.CertificateError` if that is broken.
    """
    card = session.card
    pin = pin_of(card.profile, which)
    key = next((each for each in card.profile.keys_opened_by(pin) if each.role is role), None)
    if key is None:
        raise opens_no(card.profile, which, role)
    with session.transaction() as deadline:
        public_key = read_public_key(card, key, deadline=deadline)
    if public_key is None:
        raise KeyNotFound(
            f"Nothing on the card tells the public half of the {key.label}: there is no EF.PK and no certificate.",
            remedy="Import the first certificate that its issuer made for it.",
        )
    guard = PinGuard(source, serial=session.serial, ledger=ledger, kept=kept, attended=attended, uri=session.uri)
    return card_private_key(key, public_key, CardKey(session, guard, key, pin))
