"""Dispatch tables: Python functions as C functions that OpenSSL can call."""

import ctypes
import itertools
from _ctypes import CFuncPtr
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from demail_hw.tls.openssl.failures import Failures
from demail_hw.tls.openssl.structures import Dispatch

__all__ = ["CCallback", "DispatchTable", "address_of"]

CCallback: TypeAlias = tuple[type[CFuncPtr], Callable[..., int]]
"""A prototype, and the Python function behind it, whose result is OpenSSL's success or failure."""

_CONSTANT: Final = ctypes.CFUNCTYPE(ctypes.c_void_p)


def address_of(thunk: CFuncPtr) -> int:
    """Where the machine code of a C function is."""
    return ctypes.cast(thunk, ctypes.c_void_p).value or 0


def _constant(value: int) -> CFuncPtr:
    """A C function that takes whatever it is passed and returns a number or an address.

    No Python code runs in it, so no signal can be handled in it and no exception can come out of it, after which C
    would follow an undefined address.
    """
    return _CONSTANT(itertools.repeat(value).__next__)


class DispatchTable:
    """An OSSL_DISPATCH table, by function id. ``address``: valid as long as this object lives.

    ``functions``: Python functions. ``constants``: what functions return that always return the same.
    ``native``: addresses of C functions.
    """

    __slots__ = ("_array", "_thunks", "address")

    def __init__(
        self,
        failures: Failures,
        functions: Mapping[int, CCallback],
        *,
        constants: Mapping[int, int] | None = None,
        native: Mapping[int, int] | None = None,
    ) -> None:
        self._thunks = {
            number: prototype(failures.guard(function)) for number, (prototype, function) in functions.items()
        }
        self._thunks |= {number: _constant(value) for number, value in (constants or {}).items()}
        addresses = {number: address_of(thunk) for number, thunk in self._thunks.items()} | dict(native or {})
        self._array = (Dispatch * (len(addresses) + 1))(*itertools.starmap(Dispatch, addresses.items()))
        self.address = ctypes.addressof(self._array)
