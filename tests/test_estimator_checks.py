"""scikit-learn's own checks, each a test, over every configuration of every estimator.

No check is expected to fail, none is skipped but the one that needs an environment variable set before scipy is imported,
and every warning but one is an error.
"""

import warnings
from unittest import SkipTest

import pytest
from sklearn.base import is_classifier, is_regressor
from sklearn.utils.estimator_checks import estimator_checks_generator

import skpt
from skpt.exceptions import NotConvergedWarning
from tests.configurations import CONFIGURATIONS, ESTIMATORS, Configuration

# It skips itself unless SCIPY_ARRAY_API was set when scipy was imported.
NEEDS_ARRAY_API = "check_array_api_input"


def check_name(check) -> str:
    """check_estimators_dtypes(readonly_memmap=True) and so on."""
    name = check.func.__name__
    return f"{name}({', '.join(f'{key}={value}' for key, value in check.keywords.items())})" if check.keywords else name


def checks_of(configuration: Configuration) -> list:
    found = [
        pytest.param(estimator, check, id=f"{configuration}-{check_name(check)}")
        for estimator, check in estimator_checks_generator(configuration.make(), legacy=True)
        if check.func.__name__ != NEEDS_ARRAY_API
    ]
    has_type = is_classifier(configuration.make()) or is_regressor(configuration.make())
    n_least = 55 if has_type else 44
    assert len(found) > n_least, f"scikit-learn has some {n_least + 5} checks; found {len(found)} for {configuration}"
    return found


@pytest.mark.parametrize(("estimator", "check"), [each for one in CONFIGURATIONS for each in checks_of(one)])
def test_scikit_learns_check(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Some checks learn noise from few rows. That a net still gets better at it, which this says, is no failure.
        warnings.simplefilter("ignore", NotConvergedWarning)
        try:
            check(estimator)
        except SkipTest as skip:
            pytest.fail(f"skipped: {skip}")


def test_every_estimator_is_checked():
    public = {getattr(skpt, name) for name in skpt.__all__}
    public = {each for each in public if hasattr(each, "fit")}  # branches are parts of estimators
    assert public == set(ESTIMATORS)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_each_has_three_configurations_and_the_first_is_the_default(estimator):
    own = [each for each in CONFIGURATIONS if each.estimator is estimator]
    assert len(own) >= 3
    assert own[0].make().get_params() == estimator(random_state=0).get_params()
