"""What every test may use: foreign programs, or a loud word that they are not here."""

import pathlib
import signal
import threading
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from debian_packages import find_program, packages
from pcscd import PrivatePcscd

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

REAL = pathlib.Path(__file__).parent / "real"
PACKAGE_OF = {package.program: package.name for package in packages()}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-real",
        action="store_true",
        help="a test whose foreign program is missing fails instead of being skipped",
    )


def pytest_configure() -> None:
    """Ctrl-C is tested too: whoever starts the tests in the background of a shell has it ignored for them."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup; programs that we start would inherit it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REAL in item.path.parents:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session", autouse=True)
def _state_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the PIN ledger of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATE_DIRECTORY", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def state_dir(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where the PIN ledger of this test is: each test has one of its own, as each has new cards."""
    folder = tmp_path / "state"
    monkeypatch.setenv("STATE_DIRECTORY", str(folder))
    return folder


@pytest.fixture(scope="session")
def tool(pytestconfig: pytest.Config) -> Callable[[str], str]:
    """``tool("usbip")``: the path of a foreign program that tests/debian-packages.txt names.

    Where it is missing the test is skipped, or fails with ``--require-real``.
    """
    give_up = pytest.fail if pytestconfig.getoption("--require-real") else pytest.skip

    def find(program: str) -> str:
        package = PACKAGE_OF[program]
        path = find_program(program)
        if path is None:
            give_up(f"{program} is not here: apt-get install {package}")
        return path

    return find


@pytest.fixture(scope="session")
def pcscd_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """Where the sockets of all private pcscds are, one after the other: a PC/SC client library reads the path once
    in the life of its process."""
    folder = tmp_path_factory.mktemp("pcscd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PCSCLITE_CSOCK_NAME", str(folder / "pcscd.comm"))
        yield folder


@pytest.fixture
def pcscd(tool: Callable[[str], str], pcscd_folder: pathlib.Path) -> Iterator[PrivatePcscd]:
    """A private pcscd with two virtual readers, for foreign programs and for this process."""
    program = tool("pcscd")
    tool("unshare")
    library = tool("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
    with PrivatePcscd(pcscd_folder, program=program, library=pathlib.Path(library)) as running:
        yield running
