"""The docstrings say what the signatures say, and their examples run."""

import ast
import dataclasses
import doctest
import importlib
import inspect
import re
import time

import pytest
from numpydoc.docscrape import NumpyDocString

from tests.discovery import module_names, own_methods, public_objects

SECONDS_PER_EXAMPLE = 1.0
PUBLIC = public_objects()
CLASSES = {name: each for name, each in PUBLIC.items() if inspect.isclass(each)}
METHODS = {f"{owner}.{name}": member for owner, each in CLASSES.items() for name, member in own_methods(each).items()}


class Docstring(NumpyDocString):
    """numpydoc's reader, with the section that a network has beside numpydoc's own."""

    sections = NumpyDocString.sections | {"Shape": ""}

    @property
    def parameters(self) -> dict[str, str]:
        """The documented parameters and their type lines: ``a, b : int`` are two."""
        return self._names_and_types("Parameters", "Other Parameters")

    @property
    def attributes(self) -> dict[str, str]:
        return self._names_and_types("Attributes")

    def _names_and_types(self, *sections):
        listed = [each for section in sections for each in self[section]]
        return {name.strip(): each.type for each in listed for name in each.name.split(",")}


def function_of(member):
    """What holds the docstring and the signature of a method, property, classmethod or staticmethod."""
    return member.fget if isinstance(member, property) else getattr(member, "__func__", member)


def signature(documented) -> dict[str, inspect.Parameter]:
    """The parameters that a caller gives, stars included in the name as numpydoc has them."""
    made = {}
    if dataclasses.is_dataclass(documented):
        fields = dataclasses.fields(documented)
        made = {each.name: each.default_factory for each in fields if callable(each.default_factory)}
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    found = {}
    for name, parameter in inspect.signature(documented).parameters.items():
        if name not in ("self", "cls"):
            parameter = parameter.replace(default=made[name]()) if name in made else parameter
            found[stars.get(parameter.kind, "") + name] = parameter
    return found


def constructor_is_ours(documented: type) -> bool:
    """Whether skpt defines how instances are made; else torch or skorch does, and documents it."""
    makers = (base for base in documented.__mro__ if {"__init__", "__new__"} & set(vars(base)))
    return next(makers).__module__.startswith("skpt.")


def wrong_defaults(documented, described: dict[str, str]) -> list[str]:
    """Each documented default that is not the real one, or is missing."""
    found = []
    for name, parameter in signature(documented).items():
        if name not in described:
            continue
        stated = re.search(r"\bdefault(?:=|: | )(.+)$", described[name])
        if parameter.default is inspect.Parameter.empty:
            if stated:
                found.append(f"{name} has no default, the docstring says {stated[1]}")
        elif not stated:
            found.append(f"{name} has the default {parameter.default!r}, the docstring says none")
        elif not is_written_as(parameter.default, stated[1]):
            found.append(f"{name} has the default {parameter.default!r}, the docstring says {stated[1]}")
    return found


def is_written_as(value, text: str) -> bool:
    """Whether `text` writes `value`: as a literal of equal type and value, or by the name of a class or function."""
    text = text.strip().strip("`")
    try:
        written = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        names = {repr(value), getattr(value, "__name__", None), f"{type(value).__name__}()"}
        return text in names or text.rpartition(".")[2] in names
    same_kind = type(written) is type(value) or {type(written), type(value)} <= {int, float}
    return same_kind and written == value


def hidden(documented, name: str) -> bool:
    """Whether a parameter such as ``**further`` is real, but kept out of the signature that scikit-learn reads."""
    code = getattr(getattr(documented, "__init__", None), "__code__", None)
    if not name.startswith("**") or code is None or not code.co_flags & inspect.CO_VARKEYWORDS:
        return False
    return code.co_varnames[code.co_argcount + code.co_kwonlyargcount] == name[2:]


def disagreements(documented, described: dict[str, str]) -> list[str]:
    """Where a signature and its docstring differ; `described` are the documented parameters and their type lines."""
    real = signature(documented)
    return [
        *(f"{name} is not documented" for name in real if name not in described),
        *(f"{name} is documented and no parameter" for name in described if name not in real and not hidden(documented, name)),
        *wrong_defaults(documented, described),
    ]


@pytest.mark.parametrize("name", module_names())
def test_every_file_says_what_it_holds(name):
    assert (importlib.import_module(name).__doc__ or "").strip(), f"{name} has no docstring"


@pytest.mark.parametrize("name", PUBLIC)
def test_first_line_is_one_line(name):
    text = inspect.getdoc(PUBLIC[name]) if PUBLIC[name].__doc__ else ""
    first, _, rest = (text or "").partition("\n")
    assert first, f"{name} has no docstring of its own"
    assert first.endswith((".", "?")) and len(first) <= 116, f"{name}: {first!r}"
    assert not rest or rest.startswith("\n"), f"{name}: a blank line follows the first"


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_and_signature_agree(name):
    documented = PUBLIC[name]
    docstring = Docstring(inspect.getdoc(documented))
    described = docstring.parameters
    if inspect.isclass(documented):
        # Users do not make errors and named tuples, they get them: what counts is the attributes.
        if issubclass(documented, BaseException) or not constructor_is_ours(documented):
            return
        if issubclass(documented, tuple):
            described = docstring.attributes
    found = disagreements(documented, described)
    assert not found, f"{name}:\n" + "\n".join(found)


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_documented(name):
    """By their own docstring or an inherited one; an own one that lists parameters lists all of them, rightly."""
    function = function_of(METHODS[name])
    owner, _, method = name.rpartition(".")
    assert inspect.getdoc(getattr(CLASSES[owner], method)), f"{name} has no docstring"
    described = Docstring(inspect.cleandoc(function.__doc__ or "")).parameters
    found = disagreements(function, described) if described else []
    assert not found, f"{name}:\n" + "\n".join(found)


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {test.name: test for name in module_names() for test in finder.find(importlib.import_module(name))}
    return {name: test for name, test in sorted(found.items()) if test.examples}


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run_in_under_a_second(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    test, runner = EXAMPLES[name], doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)

    def seconds():
        printed, clocks = [], (time.perf_counter, time.process_time)
        starts = [clock() for clock in clocks]
        runner.run(test, out=printed.append, clear_globs=False)
        # The lesser: a busy machine makes the one longer, several threads the other.
        took = min(clock() - start for clock, start in zip(clocks, starts, strict=True))
        assert not runner.failures, "".join(printed)
        return took

    names_before = dict(test.globs)  # what an example defines does not reach the next run
    if seconds() > SECONDS_PER_EXAMPLE:  # once more, warm: an example is not to blame for what it imports first
        test.globs = names_before
        assert seconds() < SECONDS_PER_EXAMPLE


def test_public_errors_stand_in_the_tree_of_their_module():
    """The tree in the docstring of skpt.exceptions names every class, under the one it inherits from."""
    from skpt import exceptions

    lines = [line for line in exceptions.__doc__.splitlines() if re.search(r"[A-Z]\w+(Error|Warning)\b", line)]
    depth_of = {re.search(r"[A-Z]\w+", line)[0]: re.search(r"[A-Z]", line).start() for line in lines}
    classes = [each for name, each in CLASSES.items() if name.startswith("skpt.exceptions.")]
    assert {each.__name__ for each in classes} == set(depth_of)
    for each in classes:
        parents = [base.__name__ for base in each.__bases__ if base.__module__ == "skpt.exceptions"]
        line = next(i for i, text in enumerate(lines) if re.search(r"[A-Z]\w+", text)[0] == each.__name__)
        above = [re.search(r"[A-Z]\w+", text)[0] for text in lines[:line]]
        drawn_under = next((name for name in reversed(above) if depth_of[name] < depth_of[each.__name__]), None)
        assert drawn_under == (parents[0] if parents else None), each.__name__


class TestTheReaderItself:
    """What the tests above would see, on functions made up for them."""

    def test_a_docstring_that_agrees(self):
        def fit(X, y=None, *, sizes=(64, 32), lr=0.01, name="a, b", kind=dict, **params):
            """Fit.

            Parameters
            ----------
            X, y : array, default=None
            sizes : tuple of int, default=(64, 32)
            lr : float, default=1e-2
            name : str, default='a, b'
            kind : type, default=dict
            **params : object
            """

        found = disagreements(fit, Docstring(inspect.getdoc(fit)).parameters)
        assert found == ["X has no default, the docstring says None"]

    @pytest.mark.parametrize(
        ("documented", "complaint"),
        [
            ("lr : float, default=0.02", "lr has the default 0.01, the docstring says 0.02"),
            ("lr : float", "lr has the default 0.01, the docstring says none"),
            ("rate : float, default=0.01", "lr is not documented"),
            ("lr : float, default=0.01\nextra : int", "extra is documented and no parameter"),
            ("lr : float, default='0.01'", "lr has the default 0.01, the docstring says '0.01'"),
        ],
    )
    def test_a_docstring_that_does_not(self, documented, complaint):
        def step(lr=0.01):
            pass

        assert complaint in disagreements(
            step, Docstring(f"Step.\n\nParameters\n----------\n{documented}\n").parameters
        )

    @pytest.mark.parametrize(
        ("value", "text", "same"),
        [(True, "True", True), (1, "True", False), (1.0, "1", True), (None, "None", True), ("auto", "auto", False)],
    )
    def test_defaults_are_compared_by_kind_and_value(self, value, text, same):
        assert is_written_as(value, text) is same
