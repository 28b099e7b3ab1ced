"""The state that a card forgets without power: current files, verified PINs, security environment."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from demail_hw.iso7816.status import StatusWord
from demail_hw.tcos.layout import ControlReferenceTemplate
from demail_hw_simulators.card.access import AccessRule
from demail_hw_simulators.card.dialect import Dialect
from demail_hw_simulators.card.file_system import DedicatedFile, ElementaryFile, FileSystem
from demail_hw_simulators.card.keys import CardKey
from demail_hw_simulators.card.pins import CardPin
from demail_hw_simulators.card.refusal import Refused

__all__ = ["CardState", "Snapshot"]


class Snapshot(NamedTuple):
    """What a command may change of :class:`CardState`."""

    directory: DedicatedFile
    file: ElementaryFile | None
    verified: frozenset[CardPin]
    environment: Mapping[ControlReferenceTemplate, CardKey]


class CardState:
    """From one reset to the next.

    ``dialect``: what its commands look like; ``information``: what the card says of its maker, or nothing;
    ``random``: bytes by number.

    Whether the local PINs of a DF stay verified when it is left, and the security environment when it is selected
    again, ISO 7816-4 leaves to the card (clause 9: the application-specific security status may be maintained or
    lost by application selection), and so it is the dialect's. The environment belongs to a DF and is the default
    one again as soon as another is current (10.3). It outlives VERIFY, which clients send after MSE.
    """

    __slots__ = ("dialect", "directory", "environment", "file", "file_system", "information", "random", "verified")

    def __init__(
        self, file_system: FileSystem, *, dialect: Dialect, information: bytes, random: Callable[[int], bytes]
    ) -> None:
        self.file_system = file_system
        self.dialect = dialect
        self.information = information
        self.random = random
        self.directory = file_system.root
        self.file: ElementaryFile | None = None
        self.verified: set[CardPin] = set()
        self.environment: dict[ControlReferenceTemplate, CardKey] = {}

    def enter(self, directory: DedicatedFile, file: ElementaryFile | None = None) -> None:
        """Select these: they become the current DF and EF."""
        left = directory is not self.directory
        if left or (file is None and not self.dialect.keeps_environment):
            self.environment.clear()
        if left and not self.dialect.keeps_local_pins:
            self.verified.difference_update(self.directory.local_pins())
        self.directory = directory
        self.file = file

    def snapshot(self) -> Snapshot:
        """For :meth:`restore`."""
        return Snapshot(self.directory, self.file, frozenset(self.verified), dict(self.environment))

    def restore(self, before: Snapshot) -> None:
        """As if nothing had happened since."""
        self.directory = before.directory
        self.file = before.file
        self.verified = set(before.verified)
        self.environment = dict(before.environment)

    def pin(self, reference: int) -> CardPin:
        """The PIN of a reference, in the current DF if it is local. :class:`Refused` with 6A88."""
        found = self.directory.pin(reference)
        if found is None:
            raise Refused(StatusWord.REFERENCED_DATA_NOT_FOUND)
        return found

    def require(self, rule: AccessRule) -> None:
        """:class:`Refused` with 6982 unless a PIN that the rule names is verified."""
        if rule.references is None:
            return
        if not any(self.directory.pin(reference) in self.verified for reference in rule.references):
            raise Refused(StatusWord.SECURITY_STATUS_NOT_SATISFIED)

    def use_up(self, rule: AccessRule) -> None:
        """The PINs that the rule names have to be verified again."""
        self.verified.difference_update({self.directory.pin(reference) for reference in rule.references or ()})

    def signature_key(self) -> CardKey:
        """The key that signs: the one that was set, or the DF's default. :class:`Refused` with 6985."""
        chosen = self.environment.get(ControlReferenceTemplate.DIGITAL_SIGNATURE)
        default = self.directory.signature_key
        if chosen is None and default is not None:
            chosen = self.directory.keys.get(default)
        return _chosen(chosen)

    def confidentiality_key(self) -> CardKey:
        """The key that deciphers. :class:`Refused` with 6985 if none was set."""
        return _chosen(self.environment.get(ControlReferenceTemplate.CONFIDENTIALITY))


def _chosen(key: CardKey | None) -> CardKey:
    if key is None:
        raise Refused(StatusWord.CONDITIONS_OF_USE_NOT_SATISFIED)
    return key
