"""The device's side of the standard requests (USB 2.0, 9.4), for every device that we play ourselves."""

from collections.abc import Callable, Mapping, Sequence

from demail_hw.interfaces import Buffer
from demail_hw.usb.descriptors import (
    ConfigurationDescriptor,
    DescriptorType,
    DeviceDescriptor,
    encode_languages,
    encode_string,
)
from demail_hw.usb.setup import Feature, Recipient, RequestKind, SetupPacket, StandardRequest

__all__ = ["StandardRequests"]

_UNCONFIGURED = 0
_STATUS_SELF_POWERED = 0x0001
_STATUS_HALT = 0x0001


class StandardRequests:
    """Answers the standard requests from fixed descriptors, and keeps configuration and halted endpoints.

    ``strings[0]`` is string descriptor 1, in English. ``ValueError`` or
    :class:`~demail_hw.errors.ProtocolViolation` if the descriptors are not well-formed.
    """

    def __init__(self, device_descriptor: bytes, configuration_descriptor: bytes, strings: Sequence[str]) -> None:
        DeviceDescriptor.decode(device_descriptor)
        configuration = ConfigurationDescriptor.decode(configuration_descriptor)
        self._descriptors: dict[int, bytes] = {
            DescriptorType.DEVICE << 8: device_descriptor,
            DescriptorType.CONFIGURATION << 8: configuration_descriptor,
            DescriptorType.STRING << 8: encode_languages(),
        }
        for index, text in enumerate(strings, start=1):
            self._descriptors[DescriptorType.STRING << 8 | index] = encode_string(text)
        self._value = configuration.value
        self._device_status = _STATUS_SELF_POWERED if configuration.self_powered else 0
        self._interfaces = frozenset(interface.number for interface in configuration.interfaces)
        self._endpoints = frozenset(
            endpoint.address for interface in configuration.interfaces for endpoint in interface.endpoints
        )
        self._configuration = _UNCONFIGURED
        self._halted: set[int] = set()
        self._handlers: Mapping[tuple[int, bool, int], Callable[[SetupPacket], bytes | None]] = {
            (Recipient.DEVICE, True, StandardRequest.GET_DESCRIPTOR): self._get_descriptor,
            (Recipient.DEVICE, True, StandardRequest.GET_CONFIGURATION): self._get_configuration,
            (Recipient.DEVICE, False, StandardRequest.SET_CONFIGURATION): self._set_configuration,
            (Recipient.DEVICE, True, StandardRequest.GET_STATUS): self._get_device_status,
            (Recipient.INTERFACE, True, StandardRequest.GET_STATUS): self._get_interface_status,
            (Recipient.ENDPOINT, True, StandardRequest.GET_STATUS): self._get_endpoint_status,
            (Recipient.INTERFACE, True, StandardRequest.GET_INTERFACE): self._get_interface,
            (Recipient.INTERFACE, False, StandardRequest.SET_INTERFACE): self._set_interface,
            (Recipient.ENDPOINT, False, StandardRequest.CLEAR_FEATURE): self._clear_endpoint_feature,
            (Recipient.ENDPOINT, False, StandardRequest.SET_FEATURE): self._set_endpoint_feature,
        }

    @property
    def configured(self) -> bool:
        """True after SET_CONFIGURATION."""
        return self._configuration != _UNCONFIGURED

    def halted(self, endpoint: int) -> bool:
        """True while an endpoint, named by its address, must answer STALL."""
        return endpoint in self._halted

    def halt(self, endpoint: int) -> None:
        """Halt an endpoint until the host clears it."""
        self._halted.add(endpoint)

    def reset(self) -> None:
        """A bus reset: unconfigured, nothing halted (USB 2.0, 9.1.1.3)."""
        self._configuration = _UNCONFIGURED
        self._halted.clear()

    def answer(self, setup: SetupPacket, data: Buffer = b"") -> bytes | None:
        """The data stage of an IN request, ``b""`` for an OUT request that was done, ``None`` for STALL.

        No standard request that is answered here takes ``data``. Requests of a class or a vendor get a STALL:
        the device looks at those first.
        """
        if setup.kind is not RequestKind.STANDARD or data:
            return None
        handler = self._handlers.get((setup.recipient, setup.direction_in, setup.request))
        if handler is None:
            return None
        answer = handler(setup)
        return None if answer is None else answer[: setup.length]

    def _get_descriptor(self, setup: SetupPacket) -> bytes | None:
        return self._descriptors.get(setup.value)

    def _get_configuration(self, _setup: SetupPacket) -> bytes:
        return bytes((self._configuration,))

    def _set_configuration(self, setup: SetupPacket) -> bytes | None:
        if setup.value not in (_UNCONFIGURED, self._value):
            return None
        self._configuration = setup.value
        self._halted.clear()
        return b""

    def _get_device_status(self, _setup: SetupPacket) -> bytes:
        return self._device_status.to_bytes(2, "little")

    def _get_interface_status(self, setup: SetupPacket) -> bytes | None:
        return bytes(2) if setup.index in self._interfaces else None

    def _get_endpoint_status(self, setup: SetupPacket) -> bytes | None:
        if not self._knows_endpoint(setup.index):
            return None
        return (_STATUS_HALT if setup.index in self._halted else 0).to_bytes(2, "little")

    def _get_interface(self, setup: SetupPacket) -> bytes | None:
        return bytes(1) if setup.index in self._interfaces else None

    def _set_interface(self, setup: SetupPacket) -> bytes | None:
        # Only alternate setting 0 is played.
        return b"" if setup.index in self._interfaces and setup.value == 0 else None

    def _clear_endpoint_feature(self, setup: SetupPacket) -> bytes | None:
        if setup.value != Feature.ENDPOINT_HALT or not self._knows_endpoint(setup.index):
            return None
        self._halted.discard(setup.index)
        return b""

    def _set_endpoint_feature(self, setup: SetupPacket) -> bytes | None:
        if setup.value != Feature.ENDPOINT_HALT or setup.index not in self._endpoints:
            return None
        self._halted.add(setup.index)
        return b""

    def _knows_endpoint(self, address: int) -> bool:
        return address in self._endpoints or address in (0x00, 0x80)
