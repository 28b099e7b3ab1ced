"""The command line, many times without the start of a Python: for whoever wants to see what it leaves behind.

Each line on standard input is an order in JSON, carried out in a forked process: ``arguments``, ``environment``, and
two files. ``output`` gets what it prints. ``reachable`` gets, if an exception leaves the command, all that the
exception leads to: its traceback with the local variables, and each text and each buffer that can be reached from it.
The answer is a line with the exit code. Arguments that begin with ``api`` call a function of this file instead.
"""

import faulthandler
import gc
import json
import logging
import mmap
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

import demail_hw.cli.main as command_line
from demail_hw import cms, open_provider
from demail_hw.card_manager import open_manager
from demail_hw.cli.exit_codes import ExitCode, exit_code_of
from demail_hw.errors import HardwareError, PinRequired
from demail_hw.interfaces import Buffer
from demail_hw.pin_sources import parse_pin_source
from demail_hw.secrets import Pin, PinSource
from demail_hw.tcos.layout import PinName

_LEAVES: Final = (types.ModuleType, type, types.CodeType, types.BuiltinFunctionType)
"""What leads to everything that there is, and holds nothing of its own."""
_INTERRUPTED: Final = 130
_LOG: Final = logging.getLogger(__name__)


# --- What an exception leads to


def write_reachable(error: BaseException, file: BinaryIO) -> None:
    """The traceback with locals, and each text and buffer, each in a line of its own."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    file.writelines(line.encode(errors="surrogatepass") for line in shown.format())
    file.writelines(_content(found) + b"\n" for found in _reachable(error))
    file.flush()
    faulthandler.dump_traceback(file.fileno())


def _reachable(start: object) -> Iterator[object]:
    seen, waiting = {id(start)}, [start]
    while waiting:
        found = waiting.pop()
        yield found
        for each in _referents(found):
            if id(each) not in seen and not isinstance(each, _LEAVES):
                seen.add(id(each))
                waiting.append(each)


def _referents(found: object) -> Sequence[object]:
    if isinstance(found, types.FunctionType):  # not its module
        return [found.__closure__, found.__defaults__, found.__kwdefaults__]
    return gc.get_referents(found)


def _content(found: object) -> bytes:
    if isinstance(found, str):
        return found.encode(errors="surrogatepass")
    if isinstance(found, mmap.mmap):
        return found[:].rstrip(b"\0")
    if isinstance(found, list) and found and all(isinstance(each, int) for each in found):
        return repr(found).encode()
    return bytes(found) if isinstance(found, (bytes, bytearray, memoryview)) else b""


# --- The same in Python


def api_sign(address: str, pin: str) -> None:
    _sign_with(address, pin)


def _sign_with(address: str, pin: PinSource | str | Callable[[], Buffer]) -> None:
    with open_provider(address, pin) as provider:
        key = provider.identity("signature").private_key
        assert isinstance(key, rsa.RSAPrivateKey)
        key.sign(b"De-Mail", padding.PKCS1v15(), SHA256())


def api_decrypt(address: str, pin: str, message: str) -> None:
    with open_provider(address, pin) as provider:
        cms.decrypt(Path(message).read_bytes(), provider.identity("encryption"))


def api_function(address: str, path: str) -> None:
    """A function in the place of a source, which does not keep the PIN."""
    _sign_with(address, lambda: bytearray(Path(path).read_bytes().strip()))


def api_failing(address: str, path: str) -> None:
    """A function that fails, and its error holds the PIN."""
    _sign_with(address, lambda: (Path(path).read_text() + "ä").encode("ascii"))


class _Keeper:
    def __init__(self, path: str) -> None:
        self.kept = {"pins": [Path(path).read_bytes().strip()]}

    def read(self) -> Pin:
        raise PinRequired("It keeps it.")


def api_keeping(address: str, path: str) -> None:
    """A source that keeps the PIN, and gives none."""
    _sign_with(address, _Keeper(path))


def api_change(address: str, old: str, new: str) -> None:
    with open_manager(address) as manager:
        manager.pins.change(PinName.GLOBAL, parse_pin_source(old), parse_pin_source(new))


API: Final[dict[str, Callable[..., None]]] = {
    "sign": api_sign,
    "decrypt": api_decrypt,
    "function": api_function,
    "failing": api_failing,
    "keeping": api_keeping,
    "change": api_change,
}


def _call_api(name: str, *arguments: str) -> None:
    logging.basicConfig(level=logging.DEBUG)
    try:
        API[name](*arguments)
    except HardwareError as error:
        _LOG.exception("it failed")
        sys.exit(exit_code_of(error))


# --- One order


def _run(order: dict[str, Any]) -> None:
    os.environ.update(order["environment"])
    with Path(order["output"]).open("wb", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    arguments = list(order["arguments"])
    with Path(order["reachable"]).open("wb") as reachable:
        if arguments[0] == "api":
            API.update({name: _watched(function, reachable) for name, function in API.items()})
            _call_api(*arguments[1:])
        else:
            group: Any = command_line._group
            group.invoke = _watched(group.invoke, reachable)
            command_line.main(arguments)


def _watched(function: Callable[..., Any], reachable: BinaryIO) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BaseException as error:
            write_reachable(error, reachable)
            raise

    return call


def _exit_code(order: dict[str, Any]) -> int:
    try:
        _run(order)
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception:  # noqa: BLE001  as Python does
        traceback.print_exc()
        return int(ExitCode.INTERNAL)
    return int(ExitCode.OK)


def main() -> None:
    for word in command_line._COMMANDS.values():
        __import__(word)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = _exit_code(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
