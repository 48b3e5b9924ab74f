"""Convolutional estimators of sequences: unequal lengths, the three architectures, shapes that may be anywhere."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skpt import TCNClassifier, TCNRegressor
from skpt.exceptions import InvalidInputError
from skpt.modules.tcn import StepNorm

SMALL = {
    "fcn": {"channels": (6, 4)},
    "resnet": {"channels": (4, 4), "kernel_size": (3, 3)},
    "causal": {"channels": (6, 6)},
}
QUICK = {"max_epochs": 3, "lr": 0.01, "random_state": 0}
each_architecture = pytest.mark.parametrize("architecture", SMALL)
pytestmark = pytest.mark.filterwarnings("ignore::skpt.exceptions.NotConvergedWarning")


def ragged(n_samples: int = 40, n_features: int = 2, longest: int = 12):
    random = np.random.default_rng(0)
    X = [random.standard_normal((n, n_features)) for n in random.integers(3, longest + 1, n_samples)]
    return X, np.array([x[:, 0].mean() for x in X])


def padded(X: list[np.ndarray], n_timesteps: int) -> np.ndarray:
    return np.stack([np.pad(x, ((0, n_timesteps - len(x)), (0, 0)), constant_values=np.nan) for x in X])


@each_architecture
def test_a_list_of_sequences_is_what_padding_makes_of_it(architecture):
    X, y = ragged()
    make = lambda: TCNRegressor(architecture, **SMALL[architecture], **QUICK)  # noqa: E731
    net, same, longer = make().fit(X, y), make().fit(padded(X, 12), y), make().fit(padded(X, 20), y)
    np.testing.assert_array_equal(net.predict(X), same.predict(X))
    np.testing.assert_allclose(net.predict(X), longer.predict(X), rtol=1e-4, atol=1e-4)
    each = np.concatenate([net.predict(x[None]) for x in X])
    np.testing.assert_allclose(net.predict(X), each, rtol=1e-6, atol=1e-6)


@each_architecture
def test_weights_are_repeats_of_sequences(architecture):
    """In one batch, where equal rows are one: with padding in it."""
    X, y = ragged()
    weight = np.arange(40) % 3
    parameters = {**SMALL[architecture], **QUICK, "batch_size": -1}
    weighted = TCNRegressor(architecture, **parameters).fit(X, y, sample_weight=weight)
    repeated = TCNRegressor(architecture, **parameters).fit(np.repeat(padded(X, 12), weight, axis=0), np.repeat(y, weight))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"channels": ()}, r"'channels' parameter of TCNRegressor must hold integers .* Got \(\) instead"),
        ({"channels": (4, 0)}, r"'channels' parameter of TCNRegressor must hold integers .* Got \(4, 0\) instead"),
        ({"kernel_size": (3, 3)}, r"'kernel_size' .* Got \(3, 3\) instead. Give for example 5 or \(5, 5, 5\)"),
        ({"architecture": "resnet", "kernel_size": (3, 2.5)}, r"'kernel_size' .* Give for example 5 or \(8, 5, 3\)"),
    ],
)
def test_sizes_that_cannot_be_are_errors(parameters, message):
    X, y = ragged()
    with pytest.raises(InvalidInputError, match=message):
        TCNRegressor(**QUICK, **parameters).fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "kernels"),
    [
        ({}, [8, 5, 3]),
        ({"kernel_size": 4}, [4, 4, 4]),
        ({"kernel_size": [4]}, [4, 4, 4]),
        ({"kernel_size": np.array([7, 5, 4])}, [7, 5, 4]),
        ({"channels": np.array([4, 4])}, [8, 5]),
    ],
)
def test_sizes_in_every_form(parameters, kernels):
    X, y = ragged()
    net = TCNRegressor(**{**QUICK, "channels": (4, 4, 4), **parameters, "max_epochs": 1}).fit(X, y)
    assert [block.conv.kernel_size[0] for block in net.module_.blocks] == kernels


def test_normalization_is_the_papers_where_nothing_else_is_asked_for():
    X, y = ragged()
    for architecture, sizes in SMALL.items():
        for normalization in ("auto", "batch", "weight", None):
            net = TCNRegressor(architecture, **sizes, **QUICK, normalization=normalization).initialize(X, y)
            has_batch_norm = any(isinstance(layer, StepNorm) for layer in net.module_.modules())
            has_weight_norm = any(name.endswith("weight_length") for name, _ in net.module_.named_parameters())
            papers = "weight" if architecture == "causal" else "batch"
            wanted = papers if normalization == "auto" else normalization
            assert (has_batch_norm, has_weight_norm) == (wanted == "batch", wanted == "weight")


@each_architecture
def test_it_finds_a_shape_wherever_it_is(architecture):
    """A slow or a quick wave, somewhere in noise, at any phase: no linear map tells them."""
    random = np.random.default_rng(0)
    y = np.arange(300) % 2
    X = 0.1 * random.standard_normal((300, 30))
    for series, is_quick in zip(X, y, strict=True):
        start, phase = random.integers(0, 18), random.uniform(0, 6)
        series[start : start + 12] += np.sin(phase + np.arange(12) * (1.6 if is_quick else 0.8))
    names = np.array(["slow", "quick"])[y]
    channels = (16, 16, 16) if architecture == "causal" else (16, 16)
    net = TCNClassifier(architecture, channels=channels, max_epochs=15, lr=0.01, random_state=0)
    assert net.fit(X[:200], names[:200]).score(X[200:], names[200:]) > 0.9
    assert LogisticRegression().fit(X[:200], names[:200]).score(X[200:], names[200:]) < 0.7


def test_every_parameter_can_be_searched_over():
    X, y = ragged()
    grid = {"architecture": list(SMALL), "normalization": ["auto", None], "dropout": [0.0, 0.2]}
    search = GridSearchCV(TCNClassifier(channels=(4, 4), **QUICK), grid, cv=2, error_score="raise").fit(padded(X, 12), y > 0)
    assert search.best_estimator_.module_.architecture == search.best_params_["architecture"]
