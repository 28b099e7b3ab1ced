"""What is public is declared: ``__all__`` is there, sorted and complete, in every module."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import demail_hw
import demail_hw_drivers
import demail_hw_simulators

ROOTS = (demail_hw, demail_hw_drivers, demail_hw_simulators)
PUBLIC = ("demail_hw", "demail_hw.cms", "demail_hw.gateway", "demail_hw.tls")
MODULES = sorted(
    name
    for root in ROOTS
    for name in (
        root.__name__,
        *(found.name for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")),
    )
    if not name.endswith(".__main__")  # it is there to be run, not imported
)


def defined_here(module: ModuleType) -> set[str]:
    """The public functions and classes whose home this module is."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


def sort_key(name: str) -> tuple[int, str]:
    """Constants, classes, functions: the order that ruff keeps (RUF022)."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("name", MODULES)
def test_all_is_complete_and_sorted(name: str) -> None:
    module = importlib.import_module(name)
    declared = getattr(module, "__all__", [])
    assert defined_here(module) <= set(declared)
    assert list(declared) == sorted(set(declared), key=sort_key)
    assert [missing for missing in declared if not hasattr(module, missing)] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_packages_declare_every_name_they_show(name: str) -> None:
    module = importlib.import_module(name)
    shown = {key for key, value in vars(module).items() if not key.startswith("_") and not inspect.ismodule(value)}
    assert shown == {key for key in module.__all__ if not inspect.ismodule(getattr(module, key))}
