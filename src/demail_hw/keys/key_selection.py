"""Which keys a PIN opens, and what to say where it opens none."""

from demail_hw.errors import KeyNotFound
from demail_hw.identity import KeyRole
from demail_hw.tcos.layout import PinName, PinSlot, Profile

__all__ = ["opens_no", "pin_of"]


def pin_of(profile: Profile, name: PinName) -> PinSlot:
    """The PIN of this name. Errors: :class:`~demail_hw.errors.KeyNotFound` if such a card has none."""
    try:
        return profile.pin(name)
    except KeyError:
        names = ", ".join(slot.name.value for slot in profile.pins)
        raise KeyNotFound(
            f"This {profile.name} card has no PIN {name.value}, and so no key that it opens.",
            remedy=f"Name one that it has (which= or --which): {names}.",
        ) from None


def opens_no(profile: Profile, which: PinName, role: KeyRole) -> KeyNotFound:
    """What there is to say where a PIN opens no key of this role, and which one does."""
    return KeyNotFound(
        f"The PIN {which.value} opens no {role.value} key on this card.", remedy=_remedy_for(profile, role)
    )


def _remedy_for(profile: Profile, role: KeyRole) -> str:
    names = [pin.name.value for pin in profile.pins if role in {key.role for key in profile.keys_opened_by(pin)}]
    if not names:
        return f"A {profile.name} card has no such key that can be used here: take another card."
    return f"Name a PIN that opens one (which= or --which): {', '.join(names)}."
