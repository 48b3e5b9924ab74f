"""What there is to test: every module of skpt, and every public class and function."""

import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path

import skpt

ROOT = Path(__file__).parent.parent


@cache
def module_names() -> list[str]:
    """Every module and package of skpt but the ``__main__`` files, which run a command when imported."""
    # What fails to import is imported again, so that its error is seen: walk_packages alone would hide it.
    found = pkgutil.walk_packages(skpt.__path__, "skpt.", onerror=importlib.import_module)
    return ["skpt", *(each.name for each in found if not each.name.endswith("__main__"))]


def is_package(name: str) -> bool:
    return hasattr(importlib.import_module(name), "__path__")


@cache
def public_objects() -> dict[str, object]:
    """Every class and function that the ``__all__`` of a package names, by the name of where it is defined.

    A file right under skpt counts as a package; the ``__all__`` of a file further down says what its package may use.
    """
    found = {}
    for name in module_names():
        if not is_package(name) and name.count(".") > 1:
            continue
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", []):
            each = getattr(module, public, None)  # what is missing is for test_public_api.py to say
            if inspect.isclass(each) or inspect.isroutine(each):
                found[f"{each.__module__}.{each.__qualname__}"] = each
    return {name: each for name, each in sorted(found.items()) if name.startswith("skpt.")}


def own_methods(public_class: type) -> dict[str, object]:
    """The public methods and properties of a class that skpt defines, by name: its own and those of its bases."""
    found = {}
    for base in reversed(public_class.__mro__):
        if base.__module__.partition(".")[0] == "skpt":
            found |= {
                name: member
                for name, member in vars(base).items()
                if not name.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod))
            }
    return found
