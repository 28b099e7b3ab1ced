"""Key management (provider-keymgmt(7)): handles of keys whose private half OpenSSL never sees.

A handle is a block of OpenSSL's memory that begins with the id of a registered key. OpenSSL's own functions make
and free it (see provider.py), so a key that outlives the interpreter is freed without any Python.
"""

import ctypes
from typing import Final

from demail_hw.tls.openssl.dispatch import CCallback, DispatchTable
from demail_hw.tls.openssl.failures import Failures
from demail_hw.tls.openssl.key_registry import KeyId, KeyRegistry
from demail_hw.tls.openssl.library import OpenSsl
from demail_hw.tls.openssl.params import answer, describe, read
from demail_hw.tls.openssl.public_half import EXPORT_TYPES, PARAM_TYPES
from demail_hw.tls.openssl.structures import KeymgmtFunction, Selection

__all__ = ["HARDWARE_KEY", "KeyManagement"]

HARDWARE_KEY: Final = b"hw-key"
"""The parameter in which an id comes in."""

_PRIVATE_KEY: Final = int(Selection.PRIVATE_KEY)

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_EXPORT_CALLBACK: Final = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER)


class KeyManagement:
    """The functions behind one kind of key. ``signature_name``: what signs with it, if its name is another."""

    def __init__(
        self, library: OpenSsl, registry: KeyRegistry, failures: Failures, signature_name: bytes | None = None
    ) -> None:
        self._registry = registry
        self._signature_name = ctypes.create_string_buffer(signature_name or b"")
        self._gettable = describe(PARAM_TYPES)
        self._exportable = describe(EXPORT_TYPES)
        functions: dict[int, CCallback] = {
            KeymgmtFunction.GET_PARAMS: (ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER), self._get_params),
            KeymgmtFunction.IMPORT: (ctypes.CFUNCTYPE(_INT, _POINTER, _INT, _POINTER), self._import),
            KeymgmtFunction.EXPORT: (ctypes.CFUNCTYPE(_INT, _POINTER, _INT, _POINTER, _POINTER), self._export),
        }
        constants: dict[int, int] = {
            KeymgmtFunction.HAS: True,
            KeymgmtFunction.GETTABLE_PARAMS: ctypes.addressof(self._gettable),
            KeymgmtFunction.IMPORT_TYPES: ctypes.addressof(self._exportable),
            KeymgmtFunction.EXPORT_TYPES: ctypes.addressof(self._exportable),
        }
        if signature_name is not None:
            constants[KeymgmtFunction.QUERY_OPERATION_NAME] = ctypes.addressof(self._signature_name)
        native: dict[int, int] = {
            KeymgmtFunction.NEW: library.address("CRYPTO_zalloc"),
            KeymgmtFunction.FREE: library.address("CRYPTO_free"),
        }
        self.table = DispatchTable(failures, functions, constants=constants, native=native)

    def _get_params(self, handle: int, params: int | None) -> int:
        answer(params, self._registry.at(handle).public.answers)
        return True

    def _import(self, handle: int, _selection: int, params: int | None) -> int:
        key_id = read(params)[HARDWARE_KEY]
        KeyId.from_address(handle).value = self._registry.find(int(key_id)).key_id
        return True

    def _export(self, handle: int, selection: int, callback: int, argument: int | None) -> int:
        """Hand out the public half.

        The refusal of anything private is what sends a signature to us: OpenSSL first tries to give the whole key
        to its own provider.
        """
        if selection & _PRIVATE_KEY:
            return False
        exported = self._registry.at(handle).exported
        done: int = _EXPORT_CALLBACK(callback)(exported.address, argument)
        return done
