"""OSSL_PARAM lists: reading what OpenSSL says, answering what it asks (OSSL_PARAM(3))."""

import ctypes
import sys
from collections.abc import Mapping
from typing import Final, TypeAlias

from demail_hw.tls.openssl.structures import Param, ParamType

__all__ = ["OwnedParams", "ParamValue", "answer", "describe", "read"]

ParamValue: TypeAlias = int | str | bytes
"""An integer, a UTF-8 string or an octet string."""

_STRIDE: Final = ctypes.sizeof(Param)
_INTEGER: Final = int(ParamType.INTEGER)
_UNSIGNED_INTEGER: Final = int(ParamType.UNSIGNED_INTEGER)
_UTF8_STRING: Final = int(ParamType.UTF8_STRING)
"""Plain numbers: an enum member costs a look-up in every handshake."""

_TYPES: Final[Mapping[type[ParamValue], ParamType]] = {
    int: ParamType.UNSIGNED_INTEGER,
    str: ParamType.UTF8_STRING,
    bytes: ParamType.OCTET_STRING,
}


def read(address: int | None) -> dict[bytes, ParamValue]:
    """The values of the list at ``address``."""
    values: dict[bytes, ParamValue] = {}
    while address:
        param = Param.from_address(address)
        key = param.key
        if key is None:
            break
        values[key] = _decode(param.data_type, ctypes.string_at(param.data, param.data_size))
        address += _STRIDE
    return values


def _decode(data_type: int, raw: bytes) -> ParamValue:
    if data_type == _INTEGER:
        return int.from_bytes(raw, sys.byteorder, signed=True)
    if data_type == _UNSIGNED_INTEGER:
        return int.from_bytes(raw, sys.byteorder)
    if data_type == _UTF8_STRING:
        return raw.rstrip(b"\0").decode()
    return raw


def answer(address: int | None, values: Mapping[bytes, ParamValue]) -> None:
    """Fill in every parameter of the list at ``address`` that ``values`` has.

    ``ValueError`` if there is no room for one.
    """
    while address:
        param = Param.from_address(address)
        key = param.key
        if key is None:
            break
        if key in values:
            _fill(param, values[key])
        address += _STRIDE


def _fill(param: Param, value: ParamValue) -> None:
    encoded = _encode(value, param.data_size)
    param.return_size = len(encoded)
    if param.data is None:
        return
    if len(encoded) > param.data_size:
        raise ValueError(f"no room for the parameter {param.key!r}")
    terminator = b"\0" if isinstance(value, str) and len(encoded) < param.data_size else b""
    ctypes.memmove(param.data, encoded + terminator, len(encoded) + len(terminator))


def _encode(value: ParamValue, size: int = 0) -> bytes:
    match value:
        case int():
            shortest = (value.bit_length() + 7) // 8 or 1
            return value.to_bytes(max(size, shortest), sys.byteorder)
        case str():
            return value.encode()
        case bytes():
            return value


class OwnedParams:
    """A list of our own, with the memory it points to. ``address``: valid as long as this object lives."""

    __slots__ = ("_array", "_buffers", "address")

    def __init__(self, values: Mapping[bytes, ParamValue]) -> None:
        self._array = (Param * (len(values) + 1))()
        self._buffers = [ctypes.create_string_buffer(_encode(value)) for value in values.values()]
        for param, (key, value), buffer in zip(self._array, values.items(), self._buffers, strict=False):
            param.key = key
            param.data_type = _TYPES[type(value)]
            param.data = ctypes.addressof(buffer)
            param.data_size = ctypes.sizeof(buffer) - 1
        self.address = ctypes.addressof(self._array)


def describe(types: Mapping[bytes, ParamType]) -> ctypes.Array[Param]:
    """A list of names and types without values, as the gettable and settable functions return it."""
    array = (Param * (len(types) + 1))()
    for param, (key, data_type) in zip(array, types.items(), strict=False):
        param.key = key
        param.data_type = data_type
    return array
