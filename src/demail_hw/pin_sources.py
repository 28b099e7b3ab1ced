"""Where a PIN comes from, as text: ``prompt:``, ``file:PATH``, ``credential:NAME``, ``fd:N``, ``env:NAME``,
``keyring:SERVICE/USER``.

From ``file:``, ``credential:`` and ``fd:`` the PIN is read straight into a locked page, which is wiped. ``prompt:``,
``env:`` and ``keyring:`` go through Python strings, which cannot be wiped: copies stay in this process's memory.
"""

import contextlib
import getpass
import mmap
import os
import re
import select
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from demail_hw.errors import ConfigurationError, HardwareError, PinRequired
from demail_hw.interfaces import Deadline
from demail_hw.secret_memory import secret_page
from demail_hw.secrets import Pin, PinSource

try:
    import fcntl
except ImportError:  # there is no Windows that has it
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "PROMPT",
    "SOURCES",
    "CallablePinSource",
    "CredentialPinSource",
    "DescriptorPinSource",
    "EnvironmentPinSource",
    "FilePinSource",
    "KeyringPinSource",
    "PromptPinSource",
    "need_terminal",
    "parse_pin_source",
]

PROMPT: Final = "prompt:"
"""The source that asks a person."""
SOURCES: Final = (
    f"{PROMPT}, file:PATH (mode 600), credential:NAME (systemd), fd:N, env:NAME (warned) or keyring:SERVICE/USER"
)
"""How each source is written, for whoever is to name one."""

_PIN: Final = "PIN"
_LONGEST: Final = 256
"""What is read of a line at the most, in bytes; no PIN is that long."""
_DESCRIPTOR_SECONDS: Final = 30.0
_DESCRIPTOR: Final = re.compile(r"[0-9]{1,7}")
_STANDARD_DESCRIPTORS: Final = range(3)
_HAND_IT_OVER: Final = "Hand it over as in: demail-hw ... fd:3 3<FILE"
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
            del given  # a traceback with locals would show it
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
    """The first line of a file that only its owner can read; where the path is a link, of the file that it leads to.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if others can read it, or it is no regular file;
    :class:`~demail_hw.errors.PinRequired` if it is missing or empty. ``secret``: here and below, what it is called.
    """

    def __init__(self, path: Path, secret: str = _PIN) -> None:
        self._path = path
        self._secret = secret

    def read(self) -> Pin:
        """The first line without its line end."""
        return _read_file(self._path, self._secret, forbidden=_FOREIGN_ACCESS)

    def check(self) -> None:
        """Could it be read? What is in it is not looked at. Errors: as above, but for an empty file."""
        with _opened(self._path, self._secret, _FOREIGN_ACCESS):
            pass


def _read_file(path: Path, secret: str, *, forbidden: int) -> Pin:
    """The first line of a file whose mode has no bit of ``forbidden``."""
    with _opened(path, secret, forbidden) as descriptor:
        pin = _first_line(lambda space: os.readv(descriptor, [space]))
    if not len(pin):
        raise PinRequired(f"The {secret} file {path} is empty.", remedy=f"Put the {secret} in its first line.")
    return pin


@contextlib.contextmanager
def _opened(path: Path, secret: str, forbidden: int) -> Iterator[int]:
    with _reading(f"The {secret} file {path}", remedy="Check its path and owner."):
        # A pipe without a writer would be waited for; a regular file knows no waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with _closing(descriptor):
            _check_file(path, secret, os.fstat(descriptor), forbidden)
            yield descriptor


def _check_file(path: Path, secret: str, status: os.stat_result, forbidden: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(
            f"The {secret} file {path} is not a regular file.",
            file=str(path),
            remedy="Name the file itself: file:PATH; of a pipe hand over the descriptor: fd:N.",
        )
    if status.st_mode & forbidden:
        raise ConfigurationError(
            f"The {secret} file {path} has mode {stat.S_IMODE(status.st_mode):04o}: others may read it.",
            file=str(path),
            remedy=f"chmod 600 {path}",
        )


@contextlib.contextmanager
def _reading(what: str, *, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PinRequired(f"{what} cannot be read: {error.strerror}.", remedy=remedy) from error


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _first_line(read: Callable[[memoryview], int]) -> Pin:
    """The first line, without its line end, where it was read to. ``read``: fill this space; 0 at the end."""
    page = secret_page()
    space = memoryview(page)[:_LONGEST]
    try:
        length = _fill(page, space, read)
        end = _line_end(page, length)
        space[end:length] = bytes(length - end)
    except BaseException:
        Pin.in_place(space).wipe()
        raise
    return Pin.in_place(space[:end])


def _fill(page: mmap.mmap, space: memoryview, read: Callable[[memoryview], int]) -> int:
    """Read until there is a line end, or no more; the number of bytes."""
    length = 0
    while length < len(space) and page.find(b"\n", 0, length) < 0:
        count = read(space[length:])
        if not count:
            break
        length += count
    return length


def _line_end(page: mmap.mmap, length: int) -> int:
    """Where the first line ends. Exactly one line end is taken off: LF, or CR LF."""
    end = page.find(b"\n", 0, length)
    if end < 0:
        return length
    return end - 1 if end and page[end - 1] == ord("\r") else end


class CredentialPinSource:
    """A systemd credential (systemd.exec(5), LoadCredential=): a file in ``$CREDENTIALS_DIRECTORY``.

    Where the unit has ``User=``, systemd 254 and later let that user in by an ACL, and its mask shows as group bits
    (mode 0440, systemd issue 29435): those are no fault here. Errors otherwise as for :class:`FilePinSource`.
    """

    def __init__(self, name: str, environment: Mapping[str, str] | None = None, secret: str = _PIN) -> None:
        self._name = name
        self._environment = environment
        self._secret = secret

    def read(self) -> Pin:
        """The first line of the credential. :class:`~demail_hw.errors.PinRequired` outside a service."""
        directory = _variable("CREDENTIALS_DIRECTORY", self._environment)
        if not directory:
            raise PinRequired(
                f"The credential {self._name!r} was asked for, but this process got no credentials.",
                remedy="Add LoadCredential= to the systemd unit.",
            )
        return _read_file(Path(directory) / self._name, self._secret, forbidden=_WORLD_ACCESS)


class DescriptorPinSource:
    """A file descriptor that this process inherited: a pipe or a file, read to its first line end, once, and closed.

    It is taken when the source is made: from then on its number is free, and may become that of any other file.
    ``patience``: how long whoever holds the other end of a pipe may take, in seconds. Errors:
    :class:`~demail_hw.errors.ConfigurationError` if it is not open then;
    :class:`~demail_hw.errors.PinRequired` if nothing comes, or at the second time.
    """

    def __init__(self, number: int, secret: str = _PIN, *, patience: float = _DESCRIPTOR_SECONDS) -> None:
        self._number = number
        self._secret = secret
        self._patience = patience
        self._taken = _take(number)
        self._spent = False

    def read(self) -> Pin:
        """The first line without its line end."""
        what = f"The descriptor {self._number}"
        if self._spent:
            raise PinRequired(
                f"{what} was read before, and gives the {self._secret} once.",
                remedy=f"Use file: or credential: where the {self._secret} is needed again.",
            )
        self._spent = True
        deadline = time.monotonic() + self._patience
        with _reading(what, remedy="Hand it to this process open for reading."), _closing(self._taken):
            pin = _first_line(lambda space: self._read_some(space, deadline))
        if not len(pin):
            raise PinRequired(
                f"{what} gave no {self._secret}.", remedy=f"Write the {self._secret} there, in one line."
            )
        return pin

    def _read_some(self, space: memoryview, deadline: Deadline) -> int:
        waiting = select.poll()
        waiting.register(self._taken, select.POLLIN)
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise PinRequired(
                f"The descriptor {self._number} gave no line for {self._patience:g} s.",
                remedy=f"Write the {self._secret} there with a line end, or close the other end.",
            )
        return os.readv(self._taken, [space])


def _take(number: int) -> int:
    """The same file under a number of our own, which is none of the first three and which no child inherits."""
    if fcntl is None:
        raise ConfigurationError(
            "The source fd: needs fcntl(2), which this system does not have.", remedy="Use file: there."
        )
    try:
        taken = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _STANDARD_DESCRIPTORS.stop)
    except OSError as error:
        raise ConfigurationError(
            f"The descriptor {number} cannot be taken: {error.strerror}.", remedy=_HAND_IT_OVER
        ) from error
    os.close(number)
    return taken


class EnvironmentPinSource:
    """An environment variable; warned about, since children inherit it and the owner's processes can read it."""

    def __init__(self, name: str, environment: Mapping[str, str] | None = None, secret: str = _PIN) -> None:
        self._name = name
        self._environment = environment
        self._secret = secret

    def read(self) -> Pin:
        """The variable's value. :class:`~demail_hw.errors.PinRequired` if it is not set."""
        if not _variable(self._name, self._environment):
            raise PinRequired(f"The environment variable {self._name} holds no {self._secret}.", remedy="Set it.")
        warnings.warn(
            f"the {self._secret} comes from the environment variable {self._name}: "
            "use file: or credential: in production",
            RuntimeWarning,
            stacklevel=2,
        )
        return _to_pin(_variable(self._name, self._environment))


def _variable(name: str, environment: Mapping[str, str] | None) -> str:
    """No caller keeps what it gets, or the environment, in a variable: a traceback with locals would show it."""
    return (os.environ if environment is None else environment).get(name, "")


class KeyringPinSource:
    """The desktop's keyring, through the ``keyring`` package (extra ``keyring``)."""

    def __init__(self, service: str, user: str, secret: str = _PIN) -> None:
        self._service = service
        self._user = user
        self._secret = secret

    def read(self) -> Pin:
        """The stored password. :class:`~demail_hw.errors.PinRequired` if there is none."""
        try:
            import keyring
            import keyring.errors
        except ImportError as error:
            raise ConfigurationError(
                "The source keyring: needs the package keyring.", remedy="pip install 'demail-hw[keyring]'"
            ) from error
        try:
            value = keyring.get_password(self._service, self._user)
        except keyring.errors.KeyringError as error:
            raise PinRequired(
                f"The keyring cannot be read: {type(error).__name__}.", remedy="Check that a keyring is set up here."
            ) from error
        if not value:
            raise PinRequired(
                f"The keyring holds no {self._secret} for {self._service}/{self._user}.",
                remedy="Store it with keyring set.",
            )
        return _to_pin(value)


class PromptPinSource:
    """A person at the terminal; fails at once where there is none, so that no service ever hangs."""

    def __init__(self, prompt: str = "PIN: ") -> None:
        self._prompt = prompt

    def read(self) -> Pin:
        """What was typed, without echo. :class:`~demail_hw.errors.PinRequired` without a terminal."""
        need_terminal()
        try:
            typed = getpass.getpass(self._prompt)
        except EOFError as error:
            raise PinRequired("No PIN was typed.", remedy="Type it.") from error
        if not typed:
            raise PinRequired("No PIN was typed.", remedy="Type it.")
        return _to_pin(typed)


def need_terminal() -> None:
    """:class:`~demail_hw.errors.PinRequired` where there is nobody who could type a PIN."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise PinRequired(
            "The PIN was to be asked for, but there is no terminal.",
            remedy="Type it at a terminal; a service has its PIN from file: or credential:.",
        )


def _to_pin(text: str) -> Pin:
    """What is not Unicode (an environment variable in another encoding) becomes bytes that no PIN has.

    The error that a strict encoder raises would hold the PIN.
    """
    return Pin(text.encode(errors="surrogatepass"))


def parse_pin_source(text: str, *, environment: Mapping[str, str] | None = None, secret: str = _PIN) -> PinSource:
    """Read a PIN source from text. ``secret``: what it is called, if it is no PIN.

    A literal PIN is refused, and never repeated in the message. Errors:
    :class:`~demail_hw.errors.ConfigurationError`.
    """
    kind, colon, rest = text.partition(":")
    parsers: dict[str, Callable[[str], PinSource]] = {
        "prompt": lambda _: PromptPinSource(),
        "file": lambda path: FilePinSource(Path(path), secret),
        "credential": lambda name: CredentialPinSource(_plain_name(name), environment, secret),
        "fd": lambda number: DescriptorPinSource(_descriptor(number), secret),
        "env": lambda name: EnvironmentPinSource(name, environment, secret),
        "keyring": lambda place: KeyringPinSource(*_keyring_place(place), secret),
    }
    if not colon or kind not in parsers or bool(rest) is (kind == "prompt"):
        # The text may be a PIN that somebody typed here: neither the message nor a traceback with locals shows it.
        del text, kind, rest
        raise ConfigurationError(
            f"This is no {secret} source.",
            remedy=f"Use {SOURCES}; never the {secret} itself.",
        )
    return parsers[kind](rest)


def _descriptor(number: str) -> int:
    if not _DESCRIPTOR.fullmatch(number) or int(number) in _STANDARD_DESCRIPTORS:
        raise ConfigurationError(
            "A descriptor source is written fd:N, and N is 3 or more: the first three are for other things.",
            remedy=_HAND_IT_OVER,
        )
    if not _was_inherited(int(number)):
        raise ConfigurationError(f"The descriptor {number} was not handed to this process.", remedy=_HAND_IT_OVER)
    return int(number)


def _was_inherited(number: int) -> bool:
    """What a process opens itself has the flag close-on-exec (PEP 446): a socket of a reader, say. It is no PIN's."""
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


def _plain_name(name: str) -> str:
    if "/" in name or name in {".", ".."}:
        raise ConfigurationError(
            "A credential's name has no slash.",
            remedy="Name it as LoadCredential= does, without its folder: credential:NAME.",
        )
    return name


def _keyring_place(rest: str) -> tuple[str, str]:
    service, slash, user = rest.rpartition("/")
    if not slash or not service or not user:
        raise ConfigurationError(
            "A keyring source is written keyring:SERVICE/USER.",
            remedy="Name service and user as keyring set SERVICE USER did, with a slash between them.",
        )
    return service, user
