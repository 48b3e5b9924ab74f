"""A CSV file as a learning task: its target, and which of its columns are numbers, categories or dates."""

import itertools
import re
import textwrap
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api import types

from skpt.exceptions import InvalidInputError, nearest_name

__all__ = ["Table", "counted", "one_line", "read_table"]

MAX_CLASSES = 10  # that whole numbers may be; with more of them the target is a quantity
MIN_ROWS_PER_CLASS = 5  # on average, for whole numbers to be classes

_DAYS = ["%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d"]
_TIMES = ["", " %H:%M", " %H:%M:%S"]
_DATE_FORMATS = ["ISO8601", *map("".join, itertools.product(_DAYS, _TIMES))]
_DATE_START = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}|\d{4}-\d\d$")
_NUMBERS_THE_ROWS = re.compile(r"unnamed: 0|.*(id|index|rows?|nr|no|number|names?)", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """A learning task read from a file.

    Parameters
    ----------
    X : DataFrame of shape (n_samples, n_features)
        Numbers as float columns, categories as object columns of str; NaN where a value is missing.
    y : ndarray of shape (n_samples,)
        The target, complete: floats for regression, the classes as the file has them for classification.
    classification : bool
        Whether the target is a class.
    reason : str
        Why it is taken for that, or for a quantity.
    dropped : dict of str to str
        Columns of the file that are not in `X`, and why.
    dates : dict of str to list of str
        Columns of the file that were read as dates, and the columns of `X` that they became.
    """

    X: pd.DataFrame
    y: np.ndarray
    classification: bool
    reason: str
    dropped: dict
    dates: dict

    @property
    def numbers(self) -> list[str]:
        """Columns of `X` that hold numbers."""
        return [name for name in self.X if self.X[name].dtype == float]

    @property
    def categories(self) -> list[str]:
        """Columns of `X` that hold categories."""
        return [name for name in self.X if self.X[name].dtype != float]


def read_table(path, target: str, task: str = "auto") -> Table:
    """Read a CSV file and decide what each of its columns is.

    Fields may be separated by commas, semicolons, tabs or bars. Empty fields, ``?`` and what pandas takes for missing
    are missing. True and false become 1 and 0; a date becomes days since 1970 (a number) and month, weekday and hour
    (categories). A column is dropped if it has no value, one value only, texts of which most appear once (names, free
    text), or the numbers of the rows under a name such as ``id``.

    Parameters
    ----------
    path : str or Path
        The file; compressed where its name ends in ``.gz``, ``.zip``, ``.bz2`` or ``.xz``.
    target : str
        Name of the column to predict.
    task : {'auto', 'regression', 'classification'}, default='auto'
        What the target is. ``'auto'`` takes texts, booleans and up to ten different whole numbers for classes, and any
        other numbers for a quantity.

    Returns
    -------
    Table
        Features, target, and what was decided.

    Raises
    ------
    InvalidInputError
        If the file cannot be read as CSV, has no such column, no other usable column, or no rows; if the target has
        missing values or a single one, or does not fit the task.
    """
    frame, target = _read_csv(Path(path)), target.strip()
    if target not in frame:
        raise InvalidInputError(f"{path} has no column {target!r}. {_hint(target, list(frame))}")
    y, classification, reason = _read_target(frame.pop(target), task)
    columns, dropped, dates = {}, {}, {}
    for name in frame:
        column = frame[name]
        numeric = types.is_numeric_dtype(column) or types.is_bool_dtype(column)
        date_parts = None if numeric else _parts_of_dates(column)
        why_not = _why_useless(column, is_date=date_parts is not None)
        if why_not:
            dropped[name] = why_not
        elif numeric:
            columns[name] = column.astype(float).replace([np.inf, -np.inf], np.nan)
        elif date_parts is not None:
            dates[name] = list(date_parts)
            columns.update(date_parts)
        elif (truths := _truths(column)) is not None:
            columns[name] = truths
        else:
            columns[name] = column.astype(object).where(column.notna(), np.nan)
    if not columns:
        listed = "; ".join(f"{name!r}: {why}" for name, why in dropped.items())
        raise InvalidInputError(f"{path} has no column to learn from beside {target!r}. {one_line(listed)}".strip())
    return Table(pd.DataFrame(columns), y, classification, reason, dropped, dates)


def _read_csv(path: Path) -> pd.DataFrame:
    """Read the file, with whichever separator its header uses."""
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder. Give a CSV file.")
    try:
        header = _parse(path, ",", nrows=0, index_col=None).columns
        separator = max(",;\t|", key=header[0].count) if len(header) == 1 else ","
        frame = _parse(path, separator)
        if separator == ";":  # commas may be decimal points; then more columns are numbers once they are read so
            frame = max(frame, _parse(path, separator, decimal=","), key=lambda each: each.select_dtypes("number").shape)
    except FileNotFoundError:
        raise InvalidInputError(f"there is no file {path}") from None
    except pd.errors.EmptyDataError:
        raise InvalidInputError(f"{path} is empty") from None
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is no CSV file in UTF-8. Save it as 'CSV UTF-8'.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise InvalidInputError(f"{path} is no CSV file: {one_line(str(error))}") from None
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"cannot read {path}: {one_line(str(error))}") from None
    frame.columns = frame.columns.str.strip()
    if not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()][0]
        raise InvalidInputError(f"{path} has two columns named {repeated!r}. Rename one of them.")
    if "\0" in "".join(frame.columns):
        raise InvalidInputError(f"{path} is no CSV file in UTF-8. Save it as 'CSV UTF-8'.")
    if frame.empty:
        raise InvalidInputError(f"{path} has a header and no rows")
    return frame


def _parse(path: Path, separator: str, **options) -> pd.DataFrame:
    options = {"na_values": ["?"], "skipinitialspace": True, "index_col": False, "low_memory": False, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
        return pd.read_csv(path, sep=separator, **options)


def _read_target(column: pd.Series, task: str) -> tuple[np.ndarray, bool, str]:
    """The values of the target, whether they are classes, and why."""
    name, n_rows = column.name, len(column)
    if column.isna().any():
        first = int(np.flatnonzero(column.isna())[0]) + 1
        raise InvalidInputError(
            f"the target {name!r} has {counted(column.isna().sum(), 'missing value')}, the first in row {first}. "
            "Fill or remove these rows."
        )
    numeric = types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
    if numeric and not np.isfinite(column.to_numpy(dtype=float)).all():
        first = int(np.flatnonzero(~np.isfinite(column.to_numpy(dtype=float)))[0]) + 1
        raise InvalidInputError(f"the target {name!r} is infinite in row {first}. Mend or remove that row.")
    n_values = column.nunique()
    if n_values == 1:
        raise InvalidInputError(f"the target {name!r} has one value only, {column.iloc[0]}: nothing to predict")

    whole = numeric and (column == column.round()).all()
    kind = "whole numbers" if whole else "numbers" if numeric else "truth values"
    if not (numeric or types.is_bool_dtype(column)):
        kind = "texts"
    few = n_values == 2 or (n_values <= MAX_CLASSES and n_values * MIN_ROWS_PER_CLASS <= n_rows)
    classification = task == "classification" or (task == "auto" and (not numeric or (whole and few)))
    reason = f"{n_values} different {kind}" + (f", --task {task}" if task != "auto" else "")
    if not classification:
        if not numeric:
            raise InvalidInputError(f"--task regression needs a target of numbers. {name!r} holds {kind}.")
        return column.to_numpy(dtype=float), False, reason
    if n_values > max(n_rows / 2, 2):
        raise InvalidInputError(
            f"the target {name!r} is no class: it has {n_values} different values in {counted(n_rows, 'row')}"
            + (". Try --task regression." if numeric else "")
        )
    if whole:
        return column.to_numpy(dtype=int), True, reason
    if numeric:
        column = column.astype(str)  # scikit-learn takes fractions for quantities only
    return column.to_numpy(dtype=bool if types.is_bool_dtype(column) else object), True, reason


def _why_useless(column: pd.Series, is_date: bool) -> str:
    """Why nothing can be learnt from a column; '' where something can."""
    values = column.dropna()
    if values.empty:
        return "no values"
    n_values = values.nunique()
    if n_values == 1 and (len(values) == len(column) or types.is_numeric_dtype(column)):
        return f"always {one_line(str(values.iloc[0]), 30)}"
    if types.is_numeric_dtype(column):
        from_first = values.to_numpy(dtype=float) - float(values.iloc[0])
        counts_up = values.iloc[0] in (0, 1) and len(values) == len(column)
        if counts_up and _NUMBERS_THE_ROWS.fullmatch(column.name) and (from_first == np.arange(len(column))).all():
            return "numbers the rows"
    elif not is_date and (values.value_counts() == 1).sum() > len(values) / 2:
        return f"{n_values} different texts in {counted(len(values), 'row')}"
    return ""


def _parts_of_dates(column: pd.Series) -> dict[str, pd.Series] | None:
    """What a model can use of a column of dates; None if it holds anything else."""
    texts = column.dropna().astype(str)
    if not texts.head(20).str.match(_DATE_START).all():
        return None
    for form in _DATE_FORMATS:
        try:
            moments = pd.to_datetime(texts, format=form, utc=True)
        except (ValueError, OverflowError):
            continue
        break
    else:
        return None
    moments = moments.reindex(column.index)
    clock = moments.dt
    parts = {"days": (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)}
    for part, values in {"month": clock.month_name(), "weekday": clock.day_name(), "hour": clock.hour}.items():
        if values.nunique() > 1:
            parts[part] = values.astype(object).map(str, na_action="ignore")
    return {f"{column.name} {part}": values for part, values in parts.items()}


def _truths(column: pd.Series) -> pd.Series | None:
    """A column of true, false and nothing as 1, 0 and NaN; None if it holds anything else."""
    truths = column.map({True: 1.0, False: 0.0, "True": 1.0, "False": 0.0, "true": 1.0, "false": 0.0})
    return truths.astype(float) if truths.notna().equals(column.notna()) else None


def _hint(name: str, known: list[str]) -> str:
    """The column that was probably meant, whatever its case."""
    by_case = {each.casefold(): each for each in known}
    if name.casefold() in by_case:
        return f"Did you mean {by_case[name.casefold()]!r}?"
    return one_line(nearest_name(name, known))


def counted(n: int, noun: str) -> str:
    """Write a number with its noun, in the plural where it needs one.

    Parameters
    ----------
    n : int
        How many.
    noun : str
        Of what, in the singular.

    Returns
    -------
    str
        For example ``'2 rows'``.
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def one_line(text: str, width: int = 200) -> str:
    """Bring a text into one line, and cut it at the end of a word where it is too long.

    Parameters
    ----------
    text : str
        Any text.
    width : int, default=200
        Characters that may stay.

    Returns
    -------
    str
        One line.
    """
    return textwrap.shorten(text, width, placeholder=" ...")
