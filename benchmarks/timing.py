"""Interleaved timing: what the machine does meanwhile falls on every candidate alike.

A machine's speed drifts by more than the differences that matter (frequency, neighbours, caches). So the candidates
take turns, in an order that is reversed from round to round, and a ratio is the median of the ratios within a round,
never the ratio of two medians that were taken at different times.
"""

import gc
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter, sleep


def wall_seconds(run: Callable[[], object]) -> float:
    """Seconds that one call takes, garbage of earlier ones cleared before."""
    gc.collect()
    start = perf_counter()
    run()
    return perf_counter() - start


@dataclass(frozen=True)
class Timings:
    """Seconds of every candidate in every round.

    Parameters
    ----------
    seconds : dict of str to list of float
        One number a round for each candidate, all of one length.
    """

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return median(self.seconds[name])

    def minimum(self, name: str) -> float:
        return min(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        """Median over the rounds of the time of `name` over the time of `to`."""
        return median(a / b for a, b in zip(self.seconds[name], self.seconds[to], strict=True))

    def difference(self, name: str, to: str) -> float:
        """Median over the rounds of the time of `name` less the time of `to`."""
        return median(a - b for a, b in zip(self.seconds[name], self.seconds[to], strict=True))

    def table(self, to: str) -> str:
        """One line per candidate: median, minimum, ratio to the candidate `to`."""
        rows = [
            [name, duration(self.median(name)), duration(self.minimum(name)), f"{self.ratio(name, to):.3f}"]
            for name in self.seconds
        ]
        return text_table(["", "median", "minimum", f"ratio to {to}"], rows)


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int = 7,
    warmup: int = 1,
    seconds_of: Callable[[Callable], float] = wall_seconds,
    rest: float = 0.0,
) -> Timings:
    """Time callables by turns.

    Parameters
    ----------
    candidates : dict of str to callable
        What is timed, without arguments.
    repeats : int, default=7
        Rounds that count; in each, every candidate runs once.
    warmup : int, default=1
        Rounds before, which do not count.
    seconds_of : callable, default=wall_seconds
        Runs one candidate and returns its seconds.
    rest : float, default=0.0
        Seconds of rest before each, where candidates leave processes behind: loky's workers collect garbage after a call,
        0.2 s in a process that has imported torch, which must not fall on whoever comes next.

    Returns
    -------
    Timings
        The seconds of every candidate in every round that counts.
    """
    seconds = {name: [] for name in candidates}
    for round_number in range(-warmup, repeats):
        order = list(candidates) if round_number % 2 == 0 else list(candidates)[::-1]
        for name in order:
            sleep(rest)
            took = seconds_of(candidates[name])
            if round_number >= 0:
                seconds[name].append(took)
    return Timings(seconds)


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best: 1.23 s, 45.6 ms, 789 us."""
    if abs(seconds) >= 0.9995:
        return f"{seconds:.2f} s"
    if abs(seconds) >= 0.9995e-3:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.3g} us"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, the first to the left and the others to the right."""
    lines = [list(map(str, row)) for row in (header, *rows)]
    first, *others = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in (first, *others)])
    return "\n".join(
        "  ".join([head.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
        for head, *cells in lines
    )


def machine() -> str:
    """One line about where the numbers come from: processor, cores, versions, threads."""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "scikit-learn", "skorch", "numpy", "skpt"))
    try:
        n_cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        n_cores = os.cpu_count()
    import torch

    threads = f"{torch.get_num_threads()} torch thread{'s' * (torch.get_num_threads() != 1)}"
    return f"{_processor()}, {n_cores} cores, {threads}; Python {platform.python_version()}, {versions}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
