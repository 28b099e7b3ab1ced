"""Looking for a PIN in whatever a program leaves behind: texts, files, and the memory of its process."""

import base64
import re
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Copy", "copies", "copies_in_memory", "memory_flags", "random_pin", "spellings"]

_DIGITS: Final = 16
_BEGINNING: Final = 5
"""So many digits are not looked for in memory: the allocator overwrites the beginning of what was freed."""
_UNREADABLE: Final = ("[vvar]", "[vvar_vclock]", "[vsyscall]")
"""What the kernel maps for itself; /proc/PID/mem does not give it."""
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)")
_LARGEST_READ: Final = 1 << 24


def random_pin() -> str:
    """One that is in no program by chance."""
    return "".join(secrets.choice("0123456789") for _ in range(_DIGITS))


def spellings(pin: str) -> Mapping[str, bytes]:
    """What a program may have made of a PIN, by its name."""
    raw = pin.encode("ascii")
    numbers = list(raw)
    return {
        "bytes": raw,
        "UTF-16-LE, or 16-bit numbers": pin.encode("utf-16-le"),
        "UTF-16-BE": pin.encode("utf-16-be"),
        "UTF-32-LE, or 32-bit numbers": pin.encode("utf-32-le"),
        "UTF-32-BE": pin.encode("utf-32-be"),
        "64-bit numbers": struct.pack(f"<{len(raw)}Q", *numbers),
        "hexadecimal": raw.hex().encode(),
        "hexadecimal with blanks": raw.hex(" ").encode(),
        "hexadecimal with colons": raw.hex(":").encode(),
        "escaped": "".join(f"\\x{number:02x}" for number in numbers).encode(),
        "decimal": ", ".join(map(str, numbers)).encode(),
        "decimal without blanks": ",".join(map(str, numbers)).encode(),
        **{f"Base64, shifted by {shift}": _base64(raw, shift) for shift in range(3)},
    }


def _base64(raw: bytes, shift: int) -> bytes:
    """The digits that do not depend on what stands before and behind."""
    encoded = base64.b64encode(bytes(shift) + raw)
    return encoded[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6]


def _of_numbers(pin: str, addresses: Sequence[int]) -> bytes:
    """A PIN as a list of Python's numbers, in memory."""
    return struct.pack(f"<{len(pin)}Q", *(addresses[int(digit)] for digit in pin))


def copies(content: bytes, pin: str) -> list[str]:
    """The spellings in which the PIN is in there."""
    return [name for name, spelling in spellings(pin).items() if spelling in content]


class Copy(NamedTuple):
    """One found in memory: how it is spelled, at what address, in what mapping."""

    spelling: str
    address: int
    mapping: str


def copies_in_memory(process: int, pin: str, addresses: Sequence[int]) -> list[Copy]:
    """Every place in the readable memory of a process where the PIN is, or what is left of it.

    ``addresses``: where in a Python process the numbers from 0x30 to 0x39 are.
    """
    end = pin[_BEGINNING:]
    needles = {**spellings(end), "a list of numbers": _of_numbers(end, addresses)}
    maps = Path(f"/proc/{process}/maps").read_text().splitlines()
    found: list[Copy] = []
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            match = _MAPPING.fullmatch(line)
            assert match, line
            start, stop, rights, name = int(match[1], 16), int(match[2], 16), match[3], match[4]
            if rights.startswith("r") and name not in _UNREADABLE:
                memory.seek(start)
                content = _read(memory.read, stop - start)
                found += [Copy(needle, start + place, name) for needle, place in _places(content, needles)]
    return found


def _read(read: object, size: int) -> bytes:
    assert callable(read)
    content = bytearray()
    while len(content) < size:
        piece = read(min(_LARGEST_READ, size - len(content)))
        assert piece, "the process has changed its memory meanwhile"
        content += piece
    return bytes(content)


def _places(content: bytes, needles: Mapping[str, bytes]) -> Iterator[tuple[str, int]]:
    for name, needle in needles.items():
        place = content.find(needle)
        while place >= 0:
            yield name, place
            place = content.find(needle, place + 1)


def memory_flags(process: int | str, address: int) -> frozenset[str]:
    """The VmFlags (proc(5), /proc/PID/smaps) of the mapping that an address is in."""
    inside = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if match := _MAPPING.fullmatch(line):
            inside = int(match[1], 16) <= address < int(match[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return frozenset(line.split()[1:])
    raise AssertionError(f"{address:#x} is not mapped")
