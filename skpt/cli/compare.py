"""``skpt compare``: our estimators beside scikit-learn's linear model, on a CSV file or on the cars."""

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import FitFailedWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skpt.cli.table import Table, counted, one_line, read_table
from skpt.datasets import load_cars
from skpt.estimators import LinearClassifier, LinearRegressor, MLPClassifier, MLPRegressor
from skpt.exceptions import InvalidInputError, SkptError
from skpt.model_selection import EstimatorComparison, compare_estimators

__all__ = ["run"]

SEARCHED: dict[str, list] = {"lr": [0.02, 0.05, 0.08], "max_epochs": [10, 200, 500]}  # the course's search
MOST_CATEGORIES = 50  # columns that one categorical column may become; the rarest share the last


def run(args) -> None:
    """Compare estimators, and print what was found.

    Parameters
    ----------
    args : Namespace
        ``file``, ``target``, ``task``, ``cv``, ``out`` and ``seed``, as the command line declares them.

    Raises
    ------
    InvalidInputError
        If an argument or the file cannot be used.
    SkptError
        If no estimator of skpt could be trained, or the saved one predicts otherwise once it is loaded.
    """
    if args.file is None:
        if args.target is not None:
            raise InvalidInputError(f"--target {args.target} needs a FILE that has this column")
        _compare_on_cars(args)
    else:
        if args.target is None:
            raise InvalidInputError(f"--target is missing: which column of {args.file} shall be predicted?")
        _compare_on_file(args)


def _compare_on_cars(args) -> None:
    """The course's example: a line through 32 cars, searched for, and held against the exact one."""
    X, y = load_cars(features=["wt"], return_X_y=True)
    if 2 * args.cv > len(y):
        raise InvalidInputError(f"--cv {args.cv} needs {2 * args.cv} rows, and there are {len(y)} cars")
    folder = _folder_to_write(args.out)
    print(f"cars: {len(y)} rows, mpg (miles per gallon) from wt (weight in 1000 lb): regression\n", flush=True)
    course = LinearRegressor(optimizer="sgd", batch_size=-1, standardize_features=False, random_state=args.seed)
    ours = {
        "LinearRegressor": LinearRegressor(random_state=args.seed),
        "LinearRegressor, tuned": GridSearchCV(course, SEARCHED, scoring="r2", cv=3),
        "MLPRegressor": MLPRegressor(random_state=args.seed),
    }
    with _noted_warnings():
        comparison = _compare(LinearRegression(), ours, X, y, args)
        fitted = {name: clone(estimator).fit(X, y) for name, estimator in ours.items()}

    search = fitted["LinearRegressor, tuned"]
    tried = " and ".join(f"{name} {', '.join(map(str, values))}" for name, values in SEARCHED.items())
    failed = np.isnan(search.cv_results_["mean_test_score"])
    print(f"tuned over {tried} in 3 folds: {_assigned(search.best_params_)}, r2 {search.best_score_:.4f}")
    for params in np.array(search.cv_results_["params"])[failed]:
        print(f"diverged: {_assigned(params)}")
    print()
    fitted["LinearRegressor, tuned"] = search.best_estimator_
    lines = {"least squares, exact": LinearRegression().fit(X, y)} | fitted
    print(f"{'mpg = intercept + slope wt':26}{'slope':>12}{'intercept':>13}")
    for name, line in lines.items():
        if hasattr(line, "coef_"):
            print(f"{name:26}{line.coef_[0]:12.6f}{line.intercept_:13.6f}")
    print()
    best = _best(comparison, ours)
    _keep(comparison, best, fitted[best], X, folder)


def _assigned(params: dict) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())


def _compare_on_file(args) -> None:
    """Any table: its columns prepared by scikit-learn, the same for every estimator."""
    table = read_table(args.file, args.target, args.task)
    _check_folds(table, args.cv)
    folder = _folder_to_write(args.out)
    print("\n".join(_described(table, Path(args.file).name, args.target)), end="\n\n", flush=True)
    # Adam with a falling learning rate: it reaches the exact line on columns of any kind, where plain descent diverges.
    falling = {"optimizer": "adam", "lr_schedule": "cosine", "random_state": args.seed}
    if table.classification:
        baseline = LogisticRegression(max_iter=1000)
        nets = [LinearClassifier(**falling), MLPClassifier(random_state=args.seed)]
    else:
        baseline = LinearRegression()
        nets = [LinearRegressor(lr=0.05, standardize_target=True, **falling), MLPRegressor(random_state=args.seed)]
    ours = {type(net).__name__: make_pipeline(_prepare(table), net) for net in nets}
    with _noted_warnings():
        comparison = _compare(make_pipeline(_prepare(table), baseline), ours, table.X, table.y, args)
        best = _best(comparison, ours)
        preparation, net = clone(ours[best]).fit(table.X, table.y)
    _keep(comparison, best, net, preparation.transform(table.X), folder)
    if folder is not None:
        print("            (of the network; how the columns are prepared is not in the file)")


def _compare(baseline, ours, X, y, args) -> EstimatorComparison:
    """Cross-validate the baseline and our estimators, and print the table."""
    name = type(baseline[-1] if isinstance(baseline, Pipeline) else baseline).__name__
    comparison = compare_estimators({name: baseline, **ours}, X, y, cv=args.cv, baseline=name, random_state=args.seed)
    print(comparison, end="\n\n", flush=True)
    return comparison


def _best(comparison: EstimatorComparison, ours) -> str:
    """The best of our estimators."""
    means = comparison.frame.loc[list(ours), "mean"].dropna()
    if means.empty:
        raise SkptError("no estimator of skpt could be trained, for the reasons under the table")
    return means.idxmax()


def _prepare(table: Table):
    """What turns the columns into numbers: median and scaling, or a column for each category."""
    numbers = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    categories = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="missing", keep_empty_features=True),
        OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MOST_CATEGORIES, sparse_output=False),
    )
    return make_column_transformer((numbers, table.numbers), (categories, table.categories))


def _check_folds(table: Table, n_folds: int) -> None:
    """Whether every fold can be trained and scored on."""
    n_rows = len(table.y)
    if n_rows < 2 * n_folds:
        raise InvalidInputError(
            f"--cv {n_folds} needs {2 * n_folds} rows, and there are {n_rows}. Give a smaller --cv or more rows."
        )
    if table.classification:
        (first, n_first), (second, n_second) = Counter(table.y.tolist()).most_common(2)
        if n_first < n_folds or n_second < 2:
            raise InvalidInputError(
                f"--cv {n_folds} needs {n_folds} rows of one class and 2 of another, and the largest classes are "
                f"{first!r} with {counted(n_first, 'row')} and {second!r} with {counted(n_second, 'row')}. "
                "Give a smaller --cv or more rows."
            )


def _described(table: Table, file: str, target: str) -> list[str]:
    """What was read and decided, in a few lines."""
    task = "classification" if table.classification else "regression"
    lines = [f"{file}: {counted(len(table.y), 'row')}, target {target}: {task} ({table.reason})"]
    if table.classification:
        classes = Counter(table.y.tolist()).most_common()
        more = f" and {len(classes) - 8} more" if len(classes) > 8 else ""
        lines.append("classes:  " + ", ".join(f"{name} ({n})" for name, n in classes[:8]) + more)
    kinds = {"numbers": table.numbers, "categories": table.categories}
    lines.append("columns:  " + ", ".join(f"{len(names)} of {kind}" for kind, names in kinds.items() if names))
    for kind, remedy in {"numbers": "replaced by the median", "categories": "a category of their own"}.items():
        if n_missing := int(table.X[kinds[kind]].isna().to_numpy().sum()):
            lines.append(f"missing:  {counted(n_missing, 'value')} in columns of {kind}, {remedy}")
    if table.dates:
        lines.append(f"dates:    {', '.join(table.dates)}")
    if table.dropped:
        lines.append("left out: " + ", ".join(f"{name} ({why})" for name, why in table.dropped.items()))
    return lines


def _keep(comparison: EstimatorComparison, name: str, net, X, folder: Path | None) -> None:
    """Save the winner, load it into a fresh estimator, see that it predicts the same, and say where everything is."""
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        params = Path(place) / "winner.safetensors"
        net.save_params(f_params=params, use_safetensors=True)
        fresh = clone(net)
        fresh.load_params(f_params=params, use_safetensors=True)
    before, after = net.predict(X), fresh.predict(X)
    if not (np.array_equal(before, after) or (before.dtype.kind == "f" and np.allclose(before, after, rtol=1e-5))):
        raise SkptError(f"{name} predicts otherwise once it was saved and loaded")
    means = comparison.frame["mean"]
    behind = f" of skpt (the highest mean is that of {comparison.best})" if means[name] < means.max() else ""
    print(f"winner{behind}: {name}, trained on all {len(before)} rows")
    print("saved and loaded into a fresh estimator: the predictions agree")
    if folder is None:
        print("nothing was kept: give --out DIR for the table, a picture and the winner's parameters")
        return
    table, picture = folder / "comparison.csv", folder / "comparison.png"
    comparison.frame.join(comparison.scores.add_prefix("fold_")).to_csv(table)
    print(f"table:      {table}")
    print(f"picture:    {picture if _draw(comparison, picture) else 'left out, it needs matplotlib: skpt[plot]'}")
    print(f"parameters: {params}")


def _draw(comparison: EstimatorComparison, path: Path) -> bool:
    """Write the picture of a comparison; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8.5, 3), layout="constrained")
    comparison.plot(figure.subplots())
    figure.savefig(path, dpi=150)
    return True


def _folder_to_write(out: str | None) -> Path | None:
    """The folder of the results, there and writable."""
    if out is None:
        return None
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise InvalidInputError(f"--out {out} is no folder to write to: {error.strerror}") from None


@contextmanager
def _noted_warnings() -> Iterator[None]:
    """Gather the warnings of many fits, and print each kind once; what failed is told by the tables."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    kinds: dict[type, list[str]] = {}
    for warning in caught:
        message = one_line(str(warning.message), 150)
        if warning.category is not FitFailedWarning and not message.startswith("One or more of the test scores"):
            kinds.setdefault(warning.category, []).append(message)
    for kind, messages in kinds.items():
        print(f"note: {len(messages)} x {kind.__name__}: {messages[0]}")
    if kinds:
        print()
