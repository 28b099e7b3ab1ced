"""Signs with OpenSC's PKCS#11 module, several times in one session. For the virtual machine: standard library only.

    python3 qemu_sign.py MODULE SLOT PIN KEY_ID DATA TIMES     prints the last signature

Numbers and layouts: PKCS#11 2.40, Linux.
"""

import ctypes
import sys

WITH_TOKEN, SERIAL_SESSION, USER = 1, 4, 1
CLASS, ID, PRIVATE_KEY, RSA_PKCS = 0x000, 0x102, 3, 1
MOST = 256

Number = ctypes.c_ulong


class Attribute(ctypes.Structure):
    _fields_ = (("kind", Number), ("value", ctypes.c_void_p), ("length", Number))


class Mechanism(ctypes.Structure):
    _fields_ = (("kind", Number), ("parameter", ctypes.c_void_p), ("length", Number))


class Session:
    def __init__(self, module: str, slot: int, pin: bytes) -> None:
        self.library = ctypes.CDLL(module)
        self.call("C_Initialize", None)
        slots, count = (Number * MOST)(), Number(MOST)
        self.call("C_GetSlotList", ctypes.c_ubyte(WITH_TOKEN), slots, ctypes.byref(count))
        self.handle = Number()
        self.call("C_OpenSession", Number(slots[slot]), Number(SERIAL_SESSION), None, None, ctypes.byref(self.handle))
        self.call("C_Login", self.handle, Number(USER), pin, Number(len(pin)))

    def call(self, name: str, *arguments: object) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            sys.exit(f"{name}: 0x{code:x}")

    def key(self, identifier: bytes) -> Number:
        kind, value = Number(PRIVATE_KEY), ctypes.create_string_buffer(identifier, len(identifier))
        template = (Attribute * 2)(
            Attribute(CLASS, ctypes.addressof(kind), ctypes.sizeof(kind)),
            Attribute(ID, ctypes.addressof(value), len(identifier)),
        )
        found, count = Number(), Number()
        self.call("C_FindObjectsInit", self.handle, template, Number(len(template)))
        self.call("C_FindObjects", self.handle, ctypes.byref(found), Number(1), ctypes.byref(count))
        self.call("C_FindObjectsFinal", self.handle)
        assert count.value == 1
        return found

    def sign(self, key: Number, data: bytes) -> bytes:
        signature, length = ctypes.create_string_buffer(MOST), Number(MOST)
        self.call("C_SignInit", self.handle, ctypes.byref(Mechanism(RSA_PKCS, None, 0)), key)
        self.call("C_Sign", self.handle, data, Number(len(data)), signature, ctypes.byref(length))
        return signature.raw[: length.value]


def main() -> None:
    module, slot, pin, identifier, data, times = sys.argv[1:]
    session = Session(module, int(slot), pin.encode())
    key = session.key(bytes.fromhex(identifier))
    signatures = [session.sign(key, bytes.fromhex(data)) for _ in range(int(times))]
    session.call("C_Finalize", None)
    sys.stdout.write(signatures[-1].hex())


if __name__ == "__main__":
    main()
