"""What `from skpt import MLPClassifier` costs on top of torch, scikit-learn and skorch, in fresh processes."""

import argparse
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from benchmarks.timing import duration, interleave, machine

ROOT = Path(__file__).parent.parent
TARGET = 0.3  # seconds
WITHOUT = "import torch, sklearn, skorch"
STATEMENTS = {"without": WITHOUT, "with skpt": f"{WITHOUT}; from skpt import MLPClassifier"}


def seconds_inside(statement: str) -> float:
    """Seconds that a statement takes in a fresh process, the start of the interpreter not counted."""
    program = f"from time import perf_counter; start = perf_counter(); {statement}; print(perf_counter() - start)"
    return float(_output_of(program))


def brought_along() -> dict[str, int]:
    """How many modules skpt adds to the baseline, by library, most first."""
    program = (
        f"import sys; {STATEMENTS['without']}; before = set(sys.modules); from skpt import MLPClassifier; "
        "print(*(name.partition('.')[0] for name in set(sys.modules) - before))"
    )
    return dict(Counter(_output_of(program).split()).most_common())


def _output_of(program: str) -> str:
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{sys.executable} -c {program!r} failed in {ROOT}:\n{run.stderr}")
    return run.stdout


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks import_time", description=__doc__)
    parser.add_argument("--pairs", type=int, default=9, help="pairs of processes that count, at least 7 (default: 9)")
    arguments = parser.parse_args(argv)
    if arguments.pairs < 7:
        parser.error(f"--pairs must be at least 7, or the median says little. Got {arguments.pairs}.")

    processes = {name: partial(seconds_inside, statement) for name, statement in STATEMENTS.items()}
    timings = interleave(processes, arguments.pairs, seconds_of=lambda process: process())
    cost = timings.difference("with skpt", to="without")
    print(machine())
    print(timings.table(to="without"))
    verdict = "reached" if cost <= TARGET else "missed"
    print(f"skpt adds {duration(cost)} (median of {arguments.pairs} pairs); at most {TARGET} s: {verdict}")
    print("modules it adds:", ", ".join(f"{count} {library}" for library, count in brought_along().items()))
    return 0
