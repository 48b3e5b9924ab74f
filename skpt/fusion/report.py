"""What a fused call did: jobs, groups, what was not fused and why, and where the seconds went."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["FusionReport", "Group", "last_report"]


@dataclass(frozen=True)
class Group:
    """One stack that was trained.

    Attributes
    ----------
    n_models : int
        How many models it held.
    seconds : float
        How long it took.
    description : str
        What its models have in common.
    """

    n_models: int
    seconds: float
    description: str


@dataclass
class FusionReport:
    """What one parallel call under the backend "skpt" did.

    Parameters
    ----------
    n_jobs : int, default=0
        How many fits were handed in to be stacked.
    groups : list of Group, default=[]
        The stacks, in the order in which they ended.
    not_fused : collections.Counter, default=Counter()
        How many fits trained the ordinary way, by reason.
    seconds_training : float, default=0.0
        Wall-clock seconds in which at least one stack was training.
    seconds_total : float, default=0.0
        Wall-clock seconds of the whole call.
    """

    n_jobs: int = 0
    groups: list[Group] = field(default_factory=list)
    not_fused: Counter = field(default_factory=Counter)
    seconds_training: float = 0.0
    seconds_total: float = 0.0

    @property
    def seconds_elsewhere(self) -> float:
        """Seconds outside of training: copying estimators, slicing, other steps of a pipeline, scoring."""
        return self.seconds_total - self.seconds_training

    def merge(self, other: FusionReport) -> None:
        """Add what another process did at the same time."""
        self.n_jobs += other.n_jobs
        self.groups += other.groups
        self.not_fused += other.not_fused
        self.seconds_training = max(self.seconds_training, other.seconds_training)

    def __str__(self) -> str:
        lines = [
            f"{self.n_jobs} fits in {len(self.groups)} stacks, {sum(self.not_fused.values())} not fused; "
            f"{self.seconds_training:.3f} s in training, {self.seconds_elsewhere:.3f} s elsewhere"
        ]
        lines += [f"  {g.n_models:4d} models  {g.seconds:8.3f} s  {g.description}" for g in self.groups]
        lines += [f"  {n:4d} not fused: {reason}" for reason, n in self.not_fused.most_common()]
        return "\n".join(lines)


_last: FusionReport | None = None


def last_report() -> FusionReport | None:
    """Give the report of the last parallel call that ended under the backend "skpt" in this process.

    Returns
    -------
    FusionReport or None
        None before the first one.
    """
    return _last


def set_last_report(report: FusionReport) -> None:
    """Remember a report."""
    global _last
    _last = report
