"""Many fits at once: jobs that do the same arithmetic train as one stack."""

from skpt.fusion.stack import train_stack, why_not_stacked

__all__ = ["train_stack", "why_not_stacked"]
