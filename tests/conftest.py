"""What every test may use: foreign programs, or a loud word that they are not here."""

import pathlib
from collections.abc import Callable, Generator

import pytest

from debian_packages import find_program, packages

REAL = pathlib.Path(__file__).parent / "real"
PACKAGE_OF = {package.program: package.name for package in packages()}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-real",
        action="store_true",
        help="what is in tests/real fails where it would be skipped",
    )


def is_real(node: pytest.Item | pytest.Collector) -> bool:
    return REAL in node.path.parents


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in filter(is_real, items):
        item.add_marker(pytest.mark.real)


def forbid_skip(report: pytest.TestReport | pytest.CollectReport, node: pytest.Item | pytest.Collector) -> None:
    """Where nothing may be skipped, a skip is a failure, whoever asked for it."""
    if (
        report.skipped
        and is_real(node)
        and node.config.getoption("--require-real")
        and not hasattr(report, "wasxfail")
    ):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}. Nothing may be skipped here (--require-real)."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    forbid_skip(report, item)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    forbid_skip(report, collector)
    return report


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """``tool("usbip")``: the path of a foreign program that tests/debian-packages.txt names, or a skip."""

    def find(program: str) -> str:
        package = PACKAGE_OF[program]
        path = find_program(program)
        if path is None:
            pytest.skip(f"{program} is not here: apt-get install {package}")
        return path

    return find
