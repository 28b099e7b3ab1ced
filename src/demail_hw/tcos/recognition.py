"""Which kind of card it is: by its ATR, and where kinds share one, by the applications that it has."""

from demail_hw.errors import FileNotFound, UnknownCard
from demail_hw.interfaces import Deadline
from demail_hw.iso7816.channel import Channel
from demail_hw.tcos import commands
from demail_hw.tcos.answers import check
from demail_hw.tcos.layout import Application, Profile
from demail_hw.tcos.profiles import PROFILES

__all__ = ["recognise"]


def recognise(channel: Channel, *, deadline: Deadline) -> Profile:
    """The profile of the card behind a channel; inside a transaction.

    Nothing is sent where the ATR leaves one kind; else one SELECT for each that it leaves, until one succeeds.
    Errors: :class:`~demail_hw.errors.UnknownCard`; any other :class:`~demail_hw.errors.CardError` of SELECT.
    """
    atr = channel.connection.atr
    candidates = [profile for profile in PROFILES if profile.has_atr(atr)]
    if len(candidates) == 1:
        return candidates[0]
    for profile in candidates:
        if _has_application(channel, profile.main, deadline):
            return profile
    raise _unknown(atr, candidates)


def _has_application(channel: Channel, application: Application, deadline: Deadline) -> bool:
    command = commands.select_application(application)
    try:
        check(channel.send(command, deadline=deadline), command)
    except FileNotFound:
        return False
    return True


def _unknown(atr: bytes, candidates: list[Profile]) -> UnknownCard:
    if not candidates:
        return UnknownCard(
            f"No profile knows a card with the ATR {atr.hex().upper()}.",
            remedy="Check that it is a TeleSec card of TCOS 2 or 3; other cards need a profile of their own.",
        )
    names = ", ".join(profile.name for profile in candidates)
    return UnknownCard(
        f"The card with the ATR {atr.hex().upper()} has the application of none of these: {names}.",
        remedy="It runs the same system but is for something else; it needs a profile of its own.",
    )
