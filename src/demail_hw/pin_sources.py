"""Where a PIN comes from, as text: ``prompt:``, ``file:PATH``, ``credential:NAME``, ``env:NAME``,
``keyring:SERVICE/USER``.

From ``file:`` and ``credential:`` the PIN is read straight into the buffer that is wiped. ``prompt:``, ``env:`` and
``keyring:`` go through Python strings, which cannot be wiped: the PIN may stay in this process's memory.
"""

import contextlib
import getpass
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from demail_hw.errors import ConfigurationError, HardwareError, PinRequired
from demail_hw.secrets import Pin, PinSource

__all__ = [
    "CallablePinSource",
    "CredentialPinSource",
    "EnvironmentPinSource",
    "FilePinSource",
    "KeyringPinSource",
    "PromptPinSource",
    "parse_pin_source",
]

_LONGEST: Final = 256
_FOREIGN_ACCESS: Final = stat.S_IRWXG | stat.S_IRWXO
_WORLD_ACCESS: Final = stat.S_IRWXO


class CallablePinSource:
    """Asks a function, each time."""

    def __init__(self, function: Callable[[], bytes | bytearray | memoryview]) -> None:
        self._function = function

    def read(self) -> Pin:
        """What the function returns. ``TypeError`` if that is no bytes; its text does not hold it.

        Errors: :class:`~demail_hw.errors.PinRequired` from whatever the function raises, but for an error of ours.
        """
        given = self._ask()
        if not isinstance(given, (bytes, bytearray, memoryview)):
            raise TypeError("the PIN function must return bytes")
        return Pin(given)

    def _ask(self) -> object:
        try:
            return self._function()
        except HardwareError:
            raise
        except Exception as error:  # noqa: BLE001  a ValueError would be taken for one of the message
            kind = type(error).__name__
        # Not from the error, which can hold the PIN: one of an encoder does.
        raise PinRequired(f"The PIN function failed with {kind}.", remedy="Mend that function.")


class FilePinSource:
    """The first line of a file that only its owner can read.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if others can read it, or it is no regular file;
    :class:`~demail_hw.errors.PinRequired` if it is missing or empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Pin:
        """The first line without its line end."""
        return _read_file(self._path, forbidden=_FOREIGN_ACCESS)


def _read_file(path: Path, *, forbidden: int) -> Pin:
    """The first line of a file whose mode has no bit of ``forbidden``."""
    with _opened(path) as descriptor:
        _check_file(path, os.fstat(descriptor), forbidden)
        buffer = bytearray(_LONGEST)
        length = os.readv(descriptor, [buffer])
    pin = _first_line(buffer, length)
    if not len(pin):
        raise PinRequired(f"The PIN file {path} is empty.", remedy="Put the PIN in its first line.")
    return pin


def _check_file(path: Path, status: os.stat_result, forbidden: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"The PIN file {path} is not a regular file.", file=str(path))
    if status.st_mode & forbidden:
        raise ConfigurationError(
            f"The PIN file {path} has mode {stat.S_IMODE(status.st_mode):04o}: others may read it.",
            file=str(path),
            remedy=f"chmod 600 {path}",
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        # A pipe without a writer would be waited for; a regular file knows no waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PinRequired(
            f"The PIN file {path} cannot be read: {error.strerror}.", remedy="Check its path and owner."
        ) from error


def _first_line(buffer: bytearray, length: int) -> Pin:
    """A Pin of the first line; the read buffer is wiped."""
    end = buffer.find(b"\n", 0, length)
    end = length if end < 0 else end
    if end and buffer[end - 1] == ord("\r"):
        end -= 1
    pin = Pin(memoryview(buffer)[:end])
    Pin(buffer).wipe()
    return pin


class CredentialPinSource:
    """A systemd credential (systemd.exec(5), LoadCredential=): a file in ``$CREDENTIALS_DIRECTORY``.

    Where the unit has ``User=``, systemd 254 and later let that user in by an ACL, and its mask shows as group bits
    (mode 0440, systemd issue 29435): those are no fault here. Errors otherwise as for :class:`FilePinSource`.
    """

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self._name = name
        self._environment = environment

    def read(self) -> Pin:
        """The first line of the credential. :class:`~demail_hw.errors.PinRequired` outside a service."""
        directory = self._environment.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise PinRequired(
                f"The credential {self._name!r} was asked for, but this process got no credentials.",
                remedy="Add LoadCredential= to the systemd unit.",
            )
        return _read_file(Path(directory) / self._name, forbidden=_WORLD_ACCESS)


class EnvironmentPinSource:
    """An environment variable; warned about, since children inherit it and the owner's processes can read it."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self._name = name
        self._environment = environment

    def read(self) -> Pin:
        """The variable's value. :class:`~demail_hw.errors.PinRequired` if it is not set."""
        value = self._environment.get(self._name)
        if not value:
            raise PinRequired(f"The environment variable {self._name} holds no PIN.", remedy="Set it.")
        warnings.warn(
            f"the PIN comes from the environment variable {self._name}: use file: or credential: in production",
            RuntimeWarning,
            stacklevel=2,
        )
        return _to_pin(value)


class KeyringPinSource:
    """The desktop's keyring, through the ``keyring`` package (extra ``keyring``)."""

    def __init__(self, service: str, user: str) -> None:
        self._service = service
        self._user = user

    def read(self) -> Pin:
        """The stored password. :class:`~demail_hw.errors.PinRequired` if there is none."""
        try:
            import keyring
            import keyring.errors
        except ImportError as error:
            raise ConfigurationError(
                "The PIN source keyring: needs the package keyring.", remedy="pip install 'demail-hw[keyring]'"
            ) from error
        try:
            value = keyring.get_password(self._service, self._user)
        except keyring.errors.KeyringError as error:
            raise PinRequired(
                f"The keyring cannot be read: {type(error).__name__}.", remedy="Check that a keyring is set up here."
            ) from error
        if not value:
            raise PinRequired(
                f"The keyring holds no PIN for {self._service}/{self._user}.", remedy="Store it with keyring set."
            )
        return _to_pin(value)


class PromptPinSource:
    """A person at the terminal; fails at once where there is none, so that no service ever hangs."""

    def __init__(self, prompt: str = "PIN: ") -> None:
        self._prompt = prompt

    def read(self) -> Pin:
        """What was typed, without echo. :class:`~demail_hw.errors.PinRequired` without a terminal."""
        if sys.stdin is None or not sys.stdin.isatty():
            raise PinRequired(
                "The PIN was to be asked for, but there is no terminal.",
                remedy="Use file: or credential: in a service.",
            )
        try:
            typed = getpass.getpass(self._prompt)
        except EOFError as error:
            raise PinRequired("No PIN was typed.", remedy="Type it.") from error
        if not typed:
            raise PinRequired("No PIN was typed.", remedy="Type it.")
        return _to_pin(typed)


def _to_pin(text: str) -> Pin:
    """What is not Unicode (an environment variable in another encoding) becomes bytes that no PIN has.

    The error that a strict encoder raises would hold the PIN.
    """
    return Pin(text.encode(errors="surrogatepass"))


def parse_pin_source(text: str, *, environment: Mapping[str, str] | None = None) -> PinSource:
    """Read a PIN source from text.

    A literal PIN is refused, and never repeated in the message. Errors:
    :class:`~demail_hw.errors.ConfigurationError`.
    """
    variables = os.environ if environment is None else environment
    kind, colon, rest = text.partition(":")
    parsers: dict[str, Callable[[], PinSource]] = {
        "prompt": PromptPinSource,
        "file": lambda: FilePinSource(Path(rest)),
        "credential": lambda: CredentialPinSource(_plain_name(rest), variables),
        "env": lambda: EnvironmentPinSource(rest, variables),
        "keyring": lambda: _parse_keyring(rest),
    }
    if not colon or kind not in parsers or bool(rest) is (kind == "prompt"):
        # The text may be a PIN that somebody typed here: it is not shown.
        raise ConfigurationError(
            "This is no PIN source.",
            remedy="Use prompt:, file:PATH, credential:NAME, env:NAME or keyring:SERVICE/USER; never the PIN itself.",
        )
    return parsers[kind]()


def _plain_name(name: str) -> str:
    if "/" in name or name in {".", ".."}:
        raise ConfigurationError("A credential's name has no slash.")
    return name


def _parse_keyring(rest: str) -> KeyringPinSource:
    service, slash, user = rest.rpartition("/")
    if not slash or not service or not user:
        raise ConfigurationError("A keyring source is written keyring:SERVICE/USER.")
    return KeyringPinSource(service, user)
