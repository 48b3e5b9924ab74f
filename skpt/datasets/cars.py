"""The 32 cars of the 1974 road tests."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skpt.datasets._bunch import hand_out
from skpt.exceptions import InvalidInputError, nearest_name

__all__ = ["load_cars"]

DATA_FILE = Path(__file__).parent / "data" / "cars.csv"
TARGET_NAME = "mpg"
DESCRIPTION = """\
Cars: fuel consumption and ten measurements of 32 cars
======================================================

:Number of Instances: 32
:Number of Attributes: 10, all numeric
:Missing Values: none
:Target: mpg

========  ==================================================  ===========
column    meaning                                             range
========  ==================================================  ===========
mpg       distance on a quantity of fuel, miles/(US) gallon   10.4 - 33.9
cyl       number of cylinders                                 4, 6, 8
disp      displacement, cubic inches                          71.1 - 472
hp        gross power, horsepower                             52 - 335
drat      rear axle ratio                                     2.76 - 4.93
wt        weight, 1000 pounds                                 1.513 - 5.424
qsec      time for a quarter of a mile, seconds               14.5 - 22.9
vs        shape of the engine: 0 = V, 1 = straight            0, 1
am        transmission: 0 = automatic, 1 = manual             0, 1
gear      number of forward gears                             3, 4, 5
carb      number of carburettors                              1 - 8
========  ==================================================  ===========

The numbers come from the road tests of Motor Trend US magazine, 1974 (models of 1973 and 1974), as published in
Henderson, H. V. and Velleman, P. F. (1981), Building multiple regression models interactively, Biometrics 37, 391-411,
doi:10.2307/2530428. They are kept as published, oddities included: the rotary engine of the Mazdas is coded as one of
six cylinders, the flat engine of the Porsche as a V, and the Mercedes 240D burns diesel.

The least-squares line of mpg on wt is mpg = 37.285126 - 5.344472 wt.
"""


def load_cars(*, features: Sequence[str] | None = None, return_X_y: bool = False, as_frame: bool = False):
    """Fuel consumption and ten measurements of the 32 cars of the 1974 road tests (regression).

    The data set of the course's first regression: the heavier a car, the fewer miles it goes on a gallon. Small enough
    to look at every row, and its exact answer is known: the least-squares line of mpg on wt has the slope -5.344472 and
    the intercept 37.285126.

    =================  ===================
    Samples total      32
    Dimensionality     10
    Features           real and integer
    Target             real, 10.4 - 33.9
    =================  ===================

    Parameters
    ----------
    features : sequence of str, default=None
        Columns of X, in this order: any of 'cyl', 'disp', 'hp', 'drat', 'wt', 'qsec', 'vs', 'am', 'gear', 'carb'. None
        takes all ten. ``["wt"]`` is the course's X, one column.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Whether data and target are pandas objects instead of arrays. Their index is the name of each car.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : {ndarray, DataFrame} of shape (32, n_features)
            The features, float64.
        target : {ndarray, Series} of shape (32,)
            mpg, miles per US gallon.
        frame : DataFrame of shape (32, n_features + 1)
            Data and target, the cars' names as index (``frame.reset_index()`` makes them a column). None unless
            `as_frame` is True.
        names : list of str
            The name of each car.
        feature_names : list of str
            The columns of `data`.
        target_names : list of str
            ``["mpg"]``.
        DESCR : str
            What each column means and where the numbers come from.
        filename : str
            The path of the CSV file, which has all twelve columns.

    (data, target) : tuple if `return_X_y` is True
        The same `data` and `target`.

    Raises
    ------
    InvalidInputError
        Where `features` is empty, repeats a column, or names one that is not there or that is the target.

    See Also
    --------
    make_straight_line : Points of a line whose slope and intercept are chosen.

    References
    ----------
    Henderson, H. V. and Velleman, P. F. (1981). Building multiple regression models interactively. Biometrics, 37(2),
    391-411. `doi:10.2307/2530428 <https://doi.org/10.2307/2530428>`_

    Examples
    --------
    >>> from skpt.datasets import load_cars
    >>> X, y = load_cars(features=["wt"], return_X_y=True)
    >>> X.shape, y.shape
    ((32, 1), (32,))
    >>> load_cars(as_frame=True).frame.loc["Fiat 128", ["wt", "mpg"]]
    wt      2.2
    mpg    32.4
    Name: Fiat 128, dtype: float64
    """
    with DATA_FILE.open(encoding="utf-8", newline="") as file:
        (_, *columns), *rows = csv.reader(file)
    names = [name for name, *_ in rows]
    table = dict(zip(columns, np.array([row[1:] for row in rows], dtype=np.float64).T, strict=True))
    target = table.pop(TARGET_NAME)
    feature_names = _feature_names(features, known=list(table))
    return hand_out(
        np.column_stack([table[name] for name in feature_names]),
        target.copy(),
        feature_names=feature_names,
        target_name=TARGET_NAME,
        return_X_y=return_X_y,
        as_frame=as_frame,
        names=names,
        DESCR=DESCRIPTION,
        filename=str(DATA_FILE),
    )


def _feature_names(features: Sequence[str] | None, known: list[str]) -> list[str]:
    """Return the chosen columns of `known`, all of them for None."""
    if features is None:
        return known
    chosen = [] if isinstance(features, str) or not np.iterable(features) else list(features)
    unknown = [name for name in chosen if name not in known]
    if not chosen:
        remedy = "Give None for all ten columns, or a list of some, for example ['wt']."
    elif TARGET_NAME in unknown:
        remedy = f"{TARGET_NAME!r} is the target; leave it out."
    elif unknown:
        remedy = f"{unknown[0]!r} is no column.{nearest_name(str(unknown[0]), known)}"
    elif len(set(chosen)) < len(chosen):
        remedy = "Give each column once."
    else:
        return chosen
    raise InvalidInputError(
        f"The 'features' parameter of load_cars must be None or a sequence of different column names. Got {features!r} "
        f"instead. {remedy}"
    )
