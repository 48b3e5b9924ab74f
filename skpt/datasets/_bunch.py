"""The forms in which every data set is handed out, as scikit-learn's own loaders have them."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch


def hand_out(
    data: np.ndarray,
    target: np.ndarray,
    *,
    feature_names: list[str],
    target_name: str,
    return_X_y: bool,
    as_frame: bool,
    names: list[str] | None = None,
    **fields,
):
    """Return a table as ``(X, y)`` or as a Bunch, of arrays or of pandas objects.

    `names`, one per row, become the index of the pandas objects and a field of the Bunch; `fields` are further ones.
    """
    frame = None
    if as_frame:
        import pandas as pd

        index = None if names is None else pd.Index(names, name="name")
        frame = pd.DataFrame(data, columns=feature_names, index=index).assign(**{target_name: target})
        data, target = frame[feature_names], frame[target_name]
    if return_X_y:
        return data, target
    if names is not None:
        fields["names"] = names
    return Bunch(
        data=data,
        target=target,
        frame=frame,
        feature_names=feature_names,
        target_names=[target_name],
        **fields,
    )
