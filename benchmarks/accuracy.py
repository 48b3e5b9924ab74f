"""Scores on real data, over several seeds, beside scikit-learn's baselines and what was published."""

import argparse
import importlib
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

import torch

from benchmarks.timing import duration, machine, text_table

# Each a module of benchmarks/tasks with a function `task(data)`.
TASKS = (
    "bike_sharing",
    "clouds",
    "electricity",
    "etth1",
    "fashion_mnist",
    "houses",
    "hymenoptera",
    "omniglot",
    "ucr_timeseries",
    "water_potability",
)


@dataclass
class Task:
    """One data set: what is fitted, what it is compared with, and what is to be reached.

    Parameters
    ----------
    name : str
        The data set, and its split.
    metric : str
        What the numbers are.
    ours : dict of str to callable
        Takes a seed, fits, and gives the score on the test rows; a dict of them where there are several.
    baselines : dict of str to callable
        The same; those of scikit-learn and simple rules. Run with the first seed alone.
    published : dict of str to float
        Scores that others have published for this data.
    to_reach : callable
        Takes the mean of each of ours and the score of each baseline, by name; gives rows (what, number, number to reach,
        whether it is reached).
    """

    name: str
    metric: str
    ours: dict[str, Callable[[int], float | dict[str, float]]]
    to_reach: Callable[[dict[str, float]], list[tuple[str, float, str, bool]]]
    baselines: dict[str, Callable[[int], float]] = field(default_factory=dict)
    published: dict[str, float] = field(default_factory=dict)


def at_least(who: str, number: float) -> Callable:
    """What is to be reached: a score of so much."""
    return lambda scores: [(who, scores[who], f"at least {number:g}", scores[who] >= number)]


def at_most(who: str, number: float) -> Callable:
    """What is to be reached: an error of no more."""
    return lambda scores: [(who, scores[who], f"at most {number:g}", scores[who] <= number)]


def data_folder(given: str | None) -> Path:
    """The folder of data sets, by --data or SKPT_DATA."""
    folder = given or os.environ.get("SKPT_DATA")
    if not folder or not Path(folder).is_dir():
        raise SystemExit(f"Give the folder of data sets by --data or SKPT_DATA. Got {folder!r}.")
    return Path(folder)


def run(task: Task, seeds: int) -> str:
    """Fit everything and give the table."""
    rows, scores = [], {}
    for who, score in task.baselines.items():
        started = time.perf_counter()
        scores[who] = score(0)
        rows.append([who, f"{scores[who]:.4f}", "", duration(time.perf_counter() - started)])
    for who, score in task.ours.items():
        started = time.perf_counter()
        each = [score(seed) for seed in range(seeds)]
        seconds = (time.perf_counter() - started) / seeds
        for what in each[0] if isinstance(each[0], dict) else [None]:
            name, numbers = (who, each) if what is None else (f"{who}: {what}", [scored[what] for scored in each])
            print(f"{name}: {' '.join(f'{number:.4f}' for number in numbers)}", file=sys.stderr, flush=True)
            scores[name] = mean(numbers)
            rows.append([name, f"{scores[name]:.4f}", f"{stdev(numbers):.4f}" if seeds > 1 else "", duration(seconds)])
    rows += [[f"{who} (published)", f"{score:.4f}", "", ""] for who, score in task.published.items()]
    lines = [f"{task.name}: {task.metric}", text_table(["", "mean", "sd", "a fit"], rows)]
    for what, number, wanted, reached in task.to_reach(scores):
        lines.append(f"  {what}: {number:.4f}, to reach {wanted}: {'reached' if reached else 'NOT REACHED'}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks accuracy", description=__doc__)
    parser.add_argument("tasks", nargs="*", help=f"which data sets (default: all of {', '.join(TASKS)})")
    parser.add_argument("--data", help="folder of data sets (default: SKPT_DATA)")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each of ours (default: 3)")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.tasks) - set(TASKS)
    if unknown:
        parser.error(f"unknown data sets {sorted(unknown)}; known are {', '.join(TASKS)}")
    data = data_folder(arguments.data)
    print(f"{machine()}; {torch.get_num_threads()} threads", flush=True)
    for name in arguments.tasks or TASKS:
        module = importlib.import_module(f"benchmarks.tasks.{name}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of convergence, in baselines
            print("\n" + run(module.task(data), arguments.seeds), flush=True)
    return 0
