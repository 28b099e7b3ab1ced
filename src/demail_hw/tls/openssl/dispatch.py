"""Dispatch tables: Python functions as C functions that OpenSSL can call."""

import ctypes
import itertools
from _ctypes import CFuncPtr
from collections.abc import Callable, Mapping
from typing import TypeAlias

from demail_hw.tls.openssl.failures import Failures
from demail_hw.tls.openssl.structures import Dispatch

__all__ = ["CCallback", "DispatchTable", "address_of"]

CCallback: TypeAlias = tuple[type[CFuncPtr], Callable[..., int]]
"""A prototype and the Python function behind it."""


def address_of(thunk: CFuncPtr) -> int:
    """Where the machine code of a C function is."""
    return ctypes.cast(thunk, ctypes.c_void_p).value or 0


class DispatchTable:
    """An OSSL_DISPATCH table. ``address``: valid as long as this object lives.

    ``functions``: Python functions by id; ``native``: addresses of C functions by id.
    """

    __slots__ = ("_array", "_thunks", "address")

    def __init__(
        self, failures: Failures, functions: Mapping[int, CCallback], native: Mapping[int, int] | None = None
    ) -> None:
        self._thunks = {number: kind(failures.guard(function)) for number, (kind, function) in functions.items()}
        addresses = {number: address_of(thunk) for number, thunk in self._thunks.items()} | dict(native or {})
        self._array = (Dispatch * (len(addresses) + 1))(*itertools.starmap(Dispatch, addresses.items()))
        self.address = ctypes.addressof(self._array)
