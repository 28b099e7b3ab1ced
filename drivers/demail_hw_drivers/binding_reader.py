"""A reader that heals: ``binding:NAME``, as the configuration says."""

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from demail_hw.address import Address
from demail_hw.ccid.reader import CcidReader
from demail_hw.config.loading import load_configuration
from demail_hw.config.schema import BindingConfig, BindingMode
from demail_hw.errors import ConfigurationError, DeviceLost
from demail_hw.interfaces import CardConnection, Deadline, ReaderInfo, ShareMode, Timeouts
from demail_hw.pin_ledger import state_directory
from demail_hw_drivers.binding import Binding
from demail_hw_drivers.binding_switch import BindingSwitch
from demail_hw_drivers.usbip_client import connect
from demail_hw_drivers.usbip_serials import SerialMemory

__all__ = ["BindingReader", "BindingReaders", "bind"]

_Result = TypeVar("_Result")


class BindingReader:
    """The slot of a bound reader; a :class:`~demail_hw.interfaces.Reader`.

    What it is asked itself is asked again of the reader that comes back, until the deadline: nothing of it reaches a
    card that could mind. A reader that does not heed an ABORT is let go, and comes back reset. A card's connection is
    not healed: its command fails with the outcome that is known, and :meth:`connect` gives a new one, of a card that
    was reset.
    """

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._last: CcidReader | None = None

    @property
    def binding(self) -> Binding:
        """What holds the device."""
        return self._binding

    @property
    def name(self) -> str:
        """What the reader calls itself; the binding's name before it was ever attached."""
        return self._last.name if self._last else f"binding {self._binding.name}"

    @property
    def serial(self) -> str | None:
        """The USB serial number of the reader that it had last."""
        return self._last.serial if self._last else None

    def attach(self, *, deadline: Deadline) -> None:
        """Wait for the reader. Errors: as :meth:`Binding.reader`."""
        self._last = self._binding.reader(deadline=deadline)

    def card_present(self, *, deadline: Deadline) -> bool:
        """Is a card in the slot now?"""
        return self._ask(lambda reader: reader.card_present(deadline=deadline), deadline)

    def wait_for_card(self, present: bool, *, deadline: Deadline) -> None:
        """Wait until a card is in the slot, or until there is none."""
        self._ask(lambda reader: reader.wait_for_card(present, deadline=deadline), deadline)

    def connect(self, share: ShareMode = ShareMode.EXCLUSIVE, *, deadline: Deadline) -> CardConnection:
        """Power the card. Errors: as :meth:`Binding.reader`, and as any CCID reader's."""
        return self._ask(lambda reader: reader.connect(share, deadline=deadline), deadline)

    def close(self) -> None:
        """Let the reader go. Never raises; closing twice is allowed."""
        self._binding.close()

    def _ask(self, question: Callable[[CcidReader], _Result], deadline: Deadline) -> _Result:
        while True:
            self.attach(deadline=deadline)
            asked = self._last
            assert asked is not None
            try:
                with self._binding.abandons_deaf(asked):
                    return question(asked)
            except DeviceLost:
                if self._binding.holds(asked):
                    raise  # it is there, and says no: as to a process that did not open it


class BindingReaders:
    """The driver of ``binding:NAME`` (:class:`~demail_hw.interfaces.ReaderDriver`)."""

    in_process: Final = False
    can_share: Final = False
    parameters: Final[frozenset[str]] = frozenset()

    def open(self, address: Address, *, timeouts: Timeouts) -> BindingReader:
        """Bind the reader of this name in the configuration, and wait for it.

        Errors: :class:`~demail_hw.errors.ConfigurationError`; as :meth:`Binding.reader`.
        """
        name = address.selector
        reader = BindingReader(bind(name, load_configuration().binding(name)))
        try:
            reader.attach(deadline=time.monotonic() + timeouts.connect)
        except BaseException:
            reader.close()
            raise
        return reader

    def find(self, address: Address, *, timeouts: Timeouts) -> Sequence[ReaderInfo]:  # noqa: ARG002  nobody is asked
        """The bindings of the configuration that the address can mean; no server is asked.

        Errors: :class:`~demail_hw.errors.ConfigurationError` for a name that can never be opened.
        """
        configuration = load_configuration()
        if name := address.selector:
            config = configuration.binding(name)
            _require_user(name, config)
            return [_info(name, config)]
        bindings = sorted(configuration.bindings.items())
        return [_info(each, config) for each, config in bindings if config.mode is BindingMode.USER]


def bind(name: str, config: BindingConfig, *, switch: BindingSwitch | None = None) -> Binding:
    """A binding as configured. ``switch``: else the one in the user's state folder.

    Errors: :class:`~demail_hw.errors.ConfigurationError` for one that the kernel is to attach.
    """
    _require_user(name, config)
    used = switch or BindingSwitch(state_directory())
    serials = SerialMemory()
    return Binding(
        name,
        lambda deadline, stop: connect(config.address_of(name), deadline=deadline, serials=serials, stop=stop),
        limits=config.retry,
        enabled=config.enabled,
        is_off=lambda: used.is_off(name),
    )


def _require_user(name: str, config: BindingConfig) -> None:
    if config.mode is BindingMode.KERNEL:
        raise ConfigurationError(
            f"The binding {name!r} is the kernel's: its reader is one of this machine.",
            remedy='Attach it with demail-hw attach and use pcsc:, or write mode = "user".',
        )


def _info(name: str, config: BindingConfig) -> ReaderInfo:
    where = f"{config.host}, {config.serial or config.vid_pid or config.bus_id or 'the only reader'}"
    return ReaderInfo(f"binding:{name}", f"bound reader at {where}", config.serial, card=None, in_use=None)
