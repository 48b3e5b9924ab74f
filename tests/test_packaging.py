"""What a user installs: the whole package with its data, and nothing else."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP_LEVEL = {"skpt", "tests", "benchmarks", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"}
FIRST_COMMAND = "python -m pip install torch==2.13.0 -e . && python -m skpt compare"
TEST_COMMAND = 'python -m pip install torch==2.13.0 -e ".[test]" && python -m pytest'


def tracked_files() -> list[str]:
    """The files that git knows, the new ones that it does not ignore included."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        run = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so there is no list of what belongs to the project")
    return [name for name in run.stdout.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_top_level_has_only_what_the_design_lists():
    entries = {name.partition("/")[0] for name in tracked_files()}
    others = {name for name in entries - TOP_LEVEL if not name.startswith(".")}
    assert not others, f"move these into one of {sorted(TOP_LEVEL)}"
    assert entries >= TOP_LEVEL


def test_every_folder_of_the_package_is_a_package():
    """Folders without ``__init__.py`` are left out of the wheel."""
    folders = {path.parent for path in (ROOT / "skpt").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_dependencies_are_those_of_the_design(project):
    def names(requirements):
        return {re.match(r"[\w-]+", each)[0] for each in requirements}

    of_the_design = {"torch", "skorch", "scikit-learn", "numpy", "pandas", "safetensors"}
    assert names(project["dependencies"]) == of_the_design | {"narwhals"}  # scikit-learn's, of which we need a later version
    assert {"images", "plot", "test"} <= set(project["optional-dependencies"])
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "BSD-3-Clause"


def test_everything_imported_is_a_dependency(project):
    """The libraries that skpt imports at its top level are stated, or come with one that is."""
    stated = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]} | {"sklearn", "skpt"}
    comes_along = {"scipy", "joblib", "threadpoolctl"}  # with scikit-learn, which cannot be installed without them
    for path in (ROOT / "skpt").rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported = [node.module]
            roots = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
            assert roots <= stated | comes_along, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_readme_has_the_two_commands():
    section = re.search(r"^## The two commands$(.*?)(?=^## |\Z)", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    assert section, "README.md has no section 'The two commands'"
    commands = [line.strip() for line in section[1].splitlines() if line.strip().startswith("python -m pip")]
    assert commands == [FIRST_COMMAND, TEST_COMMAND]


def test_ci_is_an_executable_that_parses():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize(
    ("readme", "complaint"),
    [
        (None, "README.md is missing"),
        ("# skpt\n", "must end in 'python -m pytest'. Got '' instead."),
        (f"## The two commands\n\n    {FIRST_COMMAND}\n", "Got '' instead."),
        (f"## The two commands\n\n    {FIRST_COMMAND}\n    {FIRST_COMMAND}\n", f"Got '{FIRST_COMMAND}' instead."),
        (f"## The two commands\n## Else\n    {FIRST_COMMAND}\n    {TEST_COMMAND}\n", "Got '' instead."),
    ],
)
def test_ci_says_what_is_wrong_with_the_readme(tmp_path, readme, complaint):
    (tmp_path / ".ci").mkdir()
    script = shutil.copy2(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    run = subprocess.run([script], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith(".ci/run: ") and complaint in run.stderr


def copy_of_the_project(folder: Path) -> Path:
    """The project's files alone: a build leaves its traces here and not in the checkout."""
    for name in tracked_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return folder


@pytest.mark.slow
def test_wheel_holds_the_package_and_works_elsewhere(tmp_path, project):
    source = copy_of_the_project(tmp_path / "source")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    run = subprocess.run([*build, "--wheel-dir", tmp_path, source], capture_output=True, text=True)
    assert not run.returncode, run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"skpt-{project['version']}-py3-none-any.whl"

    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("licenses/LICENSE") for name in file.namelist())
        file.extractall(tmp_path / "installed")
    assert inside == {name for name in tracked_files() if name.startswith("skpt/")}

    program = (
        "import skpt; from skpt.datasets import load_cars\n"
        "print(skpt.__file__); print(load_cars(as_frame=True).frame.shape)"
    )
    elsewhere = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=elsewhere, capture_output=True, text=True)
    assert not run.returncode, run.stderr
    assert run.stdout.splitlines() == [str(tmp_path / "installed" / "skpt" / "__init__.py"), "(32, 11)"]
