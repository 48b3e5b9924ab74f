"""The public surface is the ``__all__`` of each package, and importing it costs nothing optional."""

import importlib
import subprocess
import sys

import pytest

from tests.discovery import ROOT, is_package, module_names

PUBLIC_PACKAGES = [name for name in module_names() if is_package(name) and "._" not in name]


@pytest.mark.parametrize("name", PUBLIC_PACKAGES)
def test_every_package_has_a_public_list(name):
    assert importlib.import_module(name).__all__


@pytest.mark.parametrize("name", module_names())
def test_public_names_exist_once_and_are_public(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    missing = [public for public in names if not hasattr(module, public)]
    assert not missing, f"{name}.__all__ names {missing}, which the module has not"
    assert len(set(names)) == len(names)
    private = [public for public in names if public.startswith("_") and public != "__version__"]
    assert not private, f"{name}.__all__ names {private}"


@pytest.mark.parametrize("name", PUBLIC_PACKAGES)
def test_a_package_makes_public_only_what_its_files_do(name):
    """A name is public in the file that defines it too, so that nobody has to ask which of the two holds."""
    package = importlib.import_module(name)
    for public in package.__all__:
        origin = importlib.import_module(getattr(getattr(package, public), "__module__", None) or name)
        if origin.__name__.startswith("skpt.") and hasattr(origin, "__all__"):
            assert public in origin.__all__, f"{name}.{public} is not in {origin.__name__}.__all__"


def test_import_of_skpt_imports_nothing_optional():
    """In a fresh process: what torch, scikit-learn and skorch bring along is theirs."""
    program = (
        "import sys, torch, sklearn, skorch; before = set(sys.modules)\n"
        "from skpt import MLPClassifier; print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(run.stdout.split())
    assert "skpt" in imported
    assert not imported & {"PIL", "dask", "distributed", "kornia", "matplotlib", "onnx", "onnxruntime"}, imported


def test_parts_are_there_without_an_import_of_their_own():
    """Also where several threads ask first: each alone would import what the others have begun."""
    program = (
        "import threading, skpt; errors = []\n"
        "def ask(name):\n"
        "    try: getattr(skpt, name)\n"
        "    except BaseException as error: errors.append((name, error))\n"
        "names = ['MLPClassifier', 'inspection', 'model_selection', 'MLPRegressor', 'datasets', 'fusion', 'base']\n"
        "threads = [threading.Thread(target=ask, args=(name,)) for name in names]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "print(errors, hasattr(skpt, 'MLPClasifier'), set(skpt.__all__) <= set(dir(skpt)))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[] False True\n"
