"""Reads the arguments, runs the command, and turns what goes wrong into one line and an exit code."""

import argparse
import os
import sys
from importlib import import_module, metadata
from typing import NoReturn

from skpt.exceptions import InvalidInputError, SkptError

__all__ = ["main"]

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

COMPARE = """\
Cross-validate estimators on the same folds: scikit-learn's LinearRegression or LogisticRegression as the baseline, and
skpt's linear and multilayer estimators. The best of skpt's is trained on all rows, saved, and loaded again.

Without FILE it runs on the cars: 32 cars of 1974, miles per gallon from weight, with a search over the learning rate and
the number of epochs, and the line that was found beside the exact one of least squares.
"""
COMPARE_EXAMPLES = """\
examples:
  python -m skpt compare
  python -m skpt compare houses.csv --target price
  python -m skpt compare customers.csv --target churn --cv 10 --out results
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: error: {message} (see python -m {self.prog} --help)\n")


def main(argv=None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : list of str, default=None
        The arguments. None takes those of the process.

    Returns
    -------
    int
        Exit code: 0 if all went well, 1 if something failed, 2 if arguments or files cannot be used, 130 on Ctrl-C.

    Raises
    ------
    SystemExit
        With 0 after ``--help`` and ``--version``, with 2 if the arguments cannot be read.
    """
    args = build_parser().parse_args(argv)
    try:
        # A command is a file of this folder; it is imported when asked for.
        import_module(f"skpt.cli.{args.command}").run(args)
        sys.stdout.flush()
    except SkptError as error:
        print(f"skpt {args.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return MISUSED if isinstance(error, InvalidInputError) else FAILED
    except KeyboardInterrupt:
        print(f"skpt {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, say `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        print(f"skpt {args.command}: error: {error}", file=sys.stderr)
        return FAILED
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Declare the commands and their arguments.

    Returns
    -------
    ArgumentParser
        For ``python -m skpt``.
    """
    parser = Parser(prog="skpt", description="PyTorch estimators for scikit-learn, from the command line.")
    parser.add_argument("--version", action="version", version=f"skpt {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    _declare_compare(commands)
    return parser


def _declare_compare(commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="cross-validate skpt's estimators against scikit-learn's linear model",
        description=COMPARE,
        epilog=COMPARE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="CSV file with a header (default: the cars)")
    parser.add_argument("--target", metavar="COLUMN", help="column of FILE to predict")
    parser.add_argument(
        "--task",
        choices=["auto", "regression", "classification"],
        default="auto",
        help="what the target is (default: auto: texts, truth values and few different whole numbers are classes)",
    )
    parser.add_argument("--cv", type=_at_least(2), default=5, metavar="K", help="number of folds (default: 5)")
    parser.add_argument("--out", metavar="DIR", help="folder for table, picture and parameters (default: not kept)")
    parser.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="fixes folds and training (default: 0)")


def _at_least(least: int):
    """A reader of whole numbers for argparse."""

    def whole_number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}. Got {text!r}")
        return int(text)

    return whole_number


def _version() -> str:
    try:
        return metadata.version("skpt")
    except metadata.PackageNotFoundError:
        return "(not installed)"
