"""What all estimators of sequences have in common: how they read sequences of one feature and of any length."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score
from skorch.helper import SliceDict

from skpt import MultiInputClassifier, RNNBranch, RNNClassifier, Seq2SeqRegressor, TCNClassifier, TransformerClassifier
from skpt.exceptions import InvalidInputError

QUICK = {"max_epochs": 2, "random_state": 0}
CLASSIFIERS = [
    RNNClassifier(4, **QUICK),
    TCNClassifier(channels=(4,), **QUICK),
    TransformerClassifier(d_model=8, n_heads=2, num_layers=1, dim_feedforward=8, **QUICK),
    TransformerClassifier(d_model=8, n_heads=2, num_layers=1, dim_feedforward=8, positional_encoding="learned", **QUICK),
]
random = np.random.default_rng(0)
WAVES = [random.standard_normal(n) for n in [9, *random.integers(3, 9, size=39)]]
LABELS = np.arange(40) % 2


@pytest.mark.parametrize("net", CLASSIFIERS)
def test_sequences_of_one_feature_have_any_length(net):
    net.fit(WAVES[:30], LABELS[:30])
    assert net.n_features_in_ == 1
    expected = net.predict_proba([wave[:, None] for wave in WAVES])
    assert len(np.unique(expected)) > 40
    equal = {"rtol": 1e-6, "atol": 1e-7}
    np.testing.assert_array_equal(net.predict_proba(WAVES), expected)
    for wave, alone in zip(WAVES, expected, strict=True):
        for form in ([wave], [wave.tolist()], wave[None], wave[None, :, None]):
            np.testing.assert_allclose(net.predict_proba(form), alone[None], **equal)
    cells = np.empty(2, dtype=object)
    cells[:] = [WAVES[1][:3], WAVES[2][:3]]
    np.testing.assert_allclose(net.predict_proba(cells), net.predict_proba(np.stack(list(cells))), **equal)


@pytest.mark.parametrize("net", CLASSIFIERS[:3])  # the last one takes no longer sequences than it was fitted with
def test_arrays_in_a_list_are_sequences_whatever_their_lengths(net):
    """Also where those of one fold happen to be equally long; lists of numbers are the rows of a table."""
    arrays = [wave[:3] for wave in WAVES]
    net.fit(arrays, LABELS)
    assert net.input_shape_ == (3, 1)
    assert net.n_features_in_ == 1
    assert net.fit([a.tolist() for a in arrays], LABELS).n_features_in_ == 3
    scores = cross_val_score(net, WAVES, LABELS, cv=4, error_score="raise")
    assert np.isfinite(scores).all()


def test_a_table_keeps_its_columns():
    X = np.stack([wave[:3] for wave in WAVES])
    net = RNNClassifier(4, **QUICK).fit(X, LABELS)
    with pytest.raises(ValueError, match="X has 2 features, but RNNClassifier is expecting 3 features"):
        net.predict(X[:, :2])


def test_sequences_in_the_cells_of_a_frame():
    frame = pd.DataFrame({"wave": WAVES})
    net = MultiInputClassifier([("wave", RNNBranch(4), ["wave"])], **QUICK).fit(frame, LABELS)
    expected = net.predict_proba(frame)
    each = np.concatenate([net.predict_proba(frame.iloc[[i]]) for i in range(len(frame))])
    np.testing.assert_allclose(each, expected, rtol=1e-6, atol=1e-7)


def test_sequences_answer_sequences_of_other_lengths():
    X, y = [wave[:-2] for wave in WAVES if len(wave) > 4], np.stack([wave[-2:] for wave in WAVES if len(wave) > 4])
    net = Seq2SeqRegressor(4, **QUICK).fit(X, y)
    expected = net.predict(X)
    for x, alone in zip(X, expected, strict=True):
        np.testing.assert_allclose(net.predict([x])[0], alone, rtol=1e-5, atol=1e-6)
    assert np.isfinite(net.score(X, y))
    with pytest.raises(InvalidInputError, match="has other steps or outputs than before: 2 steps"):
        net.score(X, y.T[:, :, None])
    rows = [np.ones(3), np.zeros(3)] * 5
    one = Seq2SeqRegressor(4, architecture="one_to_many", **QUICK).fit(rows, np.tile([[1.0, 2.0], [0.0, 0.0]], (5, 1)))
    assert one.predict(rows).shape == (10, 2)


def test_equally_long_sequences_of_a_dict():
    cells = np.empty(40, dtype=object)
    cells[:] = [wave[:3] for wave in WAVES]
    net = MultiInputClassifier([("wave", RNNBranch(4), "wave")], **QUICK)
    expected = net.fit(SliceDict(wave=np.stack(list(cells))[:, :, None]), LABELS).predict_proba({"wave": cells})
    np.testing.assert_array_equal(net.fit(SliceDict(wave=cells), LABELS).predict_proba(SliceDict(wave=cells)), expected)
    np.testing.assert_allclose(net.predict_proba({"wave": cells[:1]}), expected[:1], rtol=1e-6)
