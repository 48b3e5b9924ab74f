"""What README.md says holds: its examples run and print what stands under them, its tables are the signatures."""

import ast
import contextlib
import inspect
import io
import re
from pathlib import Path

import numpy as np
import pytest

import skpt

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
# Each block stands alone: it runs in a namespace and a folder of its own. A block ```text after it is what it prints.
BLOCKS = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", README, re.DOTALL | re.MULTILINE)
TITLES = [f"{README[: README.index(code)].count(chr(10)) + 1}" for code, _ in BLOCKS]
NUMBER = re.compile(r"[-+]?\d+\.\d+")
ESTIMATORS = [name for name in skpt.__all__ if hasattr(getattr(skpt, name), "fit")]  # branches are parts of estimators


@pytest.mark.parametrize(("code", "printed"), BLOCKS, ids=[f"line {title}" for title in TITLES])
def test_example_runs_and_prints_what_stands_under_it(code, printed, tmp_path, monkeypatch):
    """The text is the same; numbers with a decimal point may differ by 0.02, as processors round differently."""
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert out.getvalue() or "print" not in code
    if printed:
        assert NUMBER.sub("#", out.getvalue()) == NUMBER.sub("#", printed)
        numbers, expected = (np.array(NUMBER.findall(text), dtype=float) for text in (out.getvalue(), printed))
        np.testing.assert_allclose(numbers, expected, rtol=0, atol=0.021)


@pytest.fixture(autouse=True)
def _no_open_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_every_estimator_has_an_example():
    for name in ESTIMATORS:
        assert any(f"{name}(" in code for code, _ in BLOCKS), name


def test_the_two_commands_stand_there_literally():
    section = README.partition("\n## The two commands\n")[2].partition("\n## ")[0]
    commands = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    assert commands == [
        "python -m pip install torch==2.13.0 -e . && python -m skpt compare",
        'python -m pip install torch==2.13.0 -e ".[test]" && python -m pytest',
    ]


def table(title):
    """The rows of the table under a heading, by its columns' titles, without the marks of code."""
    section = README.partition(f"\n### {title}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


def stated_defaults(name):
    """Parameters and defaults of one estimator by the tables."""
    title, column = "Each estimator's own", "estimator"
    if name.endswith("Branch"):
        title, column = "Branches of several inputs", "branch"
    (own,) = (row["parameters and defaults"] for row in table(title) if row[column] == name)
    call = ast.parse(f"call({own})", mode="eval").body
    stated = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
    if not name.endswith("Branch"):
        shared = {row["parameter"]: ast.literal_eval(row["default"]) for row in table("All estimators")}
        assert not stated.keys() & shared.keys(), f"{name}: a parameter stands twice"
        stated |= shared
    return stated


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_tables_of_parameters_are_the_signature(name):
    signature = inspect.signature(getattr(skpt, name).__init__).parameters
    real = {each.name: each.default for each in signature.values() if each.name != "self" and each.kind != each.VAR_KEYWORD}
    assert stated_defaults(name) == real


def test_lines_of_text_fit_a_screen():
    wide = [line for line in README.splitlines() if len(line) > 128 and not line.startswith("|")]
    assert wide == []


def test_links_to_files_lead_somewhere():
    root = Path(__file__).parent.parent
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", README) + re.findall(r"`(tests/[\w/.]+)`", README)
    assert [each for each in linked if not (root / each).exists()] == []
