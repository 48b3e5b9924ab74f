"""The benchmarks' own tools: what they time, in which order, and what they make of it."""

import importlib
import re
import time

import pytest
import torch

from benchmarks.__main__ import benchmark_names
from benchmarks.__main__ import main as run_benchmark
from benchmarks.import_time import seconds_inside
from benchmarks.timing import Timings, duration, interleave, machine, text_table, wall_seconds
from tests.discovery import ROOT


def test_candidates_take_turns_in_an_order_that_reverses():
    order = []
    timings = interleave(dict(zip("abc", "abc", strict=True)), repeats=3, warmup=1, seconds_of=order.append)
    assert "".join(order) == "cba" + "abc" + "cba" + "abc"
    assert {name: len(seconds) for name, seconds in timings.seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_warmup_rounds_do_not_count():
    clock = iter([100.0, 50.0, 1.0, 2.0, 4.0, 3.0])
    timings = interleave({"a": None, "b": None}, repeats=2, warmup=1, seconds_of=lambda _: next(clock))
    assert timings.seconds == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_ratio_is_taken_within_each_round():
    """The machine slows down between the rounds: the ratio of the medians would say 1, each round but one says 0.5."""
    timings = Timings({"ours": [1.0, 20.0, 30.0], "theirs": [2.0, 40.0, 20.0]})
    assert timings.median("ours") == timings.median("theirs") == 20.0
    assert timings.minimum("theirs") == 2.0
    assert timings.ratio("ours", to="theirs") == 0.5
    assert timings.difference("ours", to="theirs") == -1.0


def test_table_shows_every_candidate_against_the_chosen_one():
    table = Timings({"plain loop": [0.002, 0.002], "skpt": [0.001, 0.001]}).table(to="plain loop")
    assert table.splitlines() == [
        "            median  minimum  ratio to plain loop",
        "----------  ------  -------  -------------------",
        "plain loop    2 ms     2 ms                1.000",
        "skpt          1 ms     1 ms                0.500",
    ]


def test_columns_of_a_table_are_as_wide_as_their_widest_cell():
    assert text_table(["a", "b"], [["long name", "1"], ["x", "22222"]]).splitlines() == [
        "a              b",
        "---------  -----",
        "long name      1",
        "x          22222",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12.345, "12.35 s"),
        (1.0, "1.00 s"),
        (0.9999, "1.00 s"),
        (0.0456, "45.6 ms"),
        (7.89e-5, "78.9 us"),
        (-0.2, "-200 ms"),
    ],
)
def test_durations_take_the_unit_that_reads_best(seconds, text):
    assert duration(seconds) == text


def test_wall_seconds_are_those_of_the_call():
    assert 0.02 <= wall_seconds(lambda: time.sleep(0.02)) < 20
    assert 0.02 <= seconds_inside("__import__('time').sleep(0.02)") < 20


def test_machine_names_the_libraries_and_threads():
    assert f"torch {torch.__version__}" in machine()
    assert re.search(r"\d+ cores, \d+ torch thread", machine())


def test_without_a_name_the_benchmarks_are_listed(capsys):
    assert run_benchmark([]) == 0
    listed = capsys.readouterr().out
    for name, purpose in benchmark_names().items():
        assert re.search(rf"^  {name} +{re.escape(purpose)}$", listed, re.M)
    assert "import_time" in listed and "timing" not in benchmark_names()


def test_an_unknown_name_ends_with_one_line_and_code_2(capsys):
    assert run_benchmark(["import_tim"]) == 2
    assert capsys.readouterr().err == "There is no benchmark 'import_tim'. Did you mean 'import_time'?\n"
    assert run_benchmark(["zzz"]) == 2
    assert "Known are: " in capsys.readouterr().err


@pytest.mark.parametrize("name", benchmark_names())
def test_every_benchmark_says_what_it_measures(name):
    assert benchmark_names()[name].endswith(".")
    assert re.search(rf"^## {name}$", (ROOT / "benchmarks" / "README.md").read_text("utf-8"), re.M)
    assert callable(importlib.import_module(f"benchmarks.{name}").main)


def test_import_time_wants_enough_pairs(capsys):
    with pytest.raises(SystemExit) as end:
        run_benchmark(["import_time", "--pairs", "3"])
    assert end.value.code == 2
    assert "--pairs must be at least 7" in capsys.readouterr().err
