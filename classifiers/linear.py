"""A probe from labelled pictures: logistic regression on their embeddings. The only door to scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from classifiers.probe import Embeddings, Head

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Of the inverse penalty C that are tried."""
FOLDS = 5

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def folds(
    truth: Rows, groups: Sequence[str], judged: npt.NDArray[np.bool_], seed: int = 0
) -> Iterator[tuple[Rows, Rows]]:
    """Rows to learn from and rows to judge by: each judged row once, and never with a row of its group beside it.

    `truth` `(n,)` places of levels, which are spread evenly over the folds. Rows that are not judged are learnt from
    always. Fewer folds where there are fewer groups, or rows of every level; none of a single group.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    mine = np.flatnonzero(judged)
    named = np.asarray(groups, dtype=object)
    # scikit-learn wants a level with a row for each fold
    number = min(FOLDS, len(set(named[mine])), int(np.bincount(truth[mine]).max(initial=0)))
    if number < 2:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = list(
            StratifiedGroupKFold(number, shuffle=True, random_state=seed).split(mine, truth[mine], named[mine])
        )
    for _, held in parts:
        out = mine[held]
        apart = ~np.isin(named, named[out])
        if len(out):
            yield np.flatnonzero(apart), out


def fit(embeddings: Embeddings, truth: Rows, levels: int, groups: Sequence[str], judged: npt.NDArray[np.bool_]) -> Head:
    """softmax(W e + b), fitted to `(n, d), (n,)`: the penalty is the one that predicts held-out judged rows best.

    The penalty by log loss over `folds`; 1 where nothing can be held out.
    """
    wide = embeddings.astype(np.float64)
    parts = [(learn, held) for learn, held in folds(truth, groups, judged) if len(set(truth[learn])) == levels]
    losses = [
        sum(_log_loss(_regression(wide[learn], truth[learn], c), wide[held], truth[held]) for learn, held in parts)
        for c in STRENGTHS
    ]
    weights, bias = _regression(wide, truth, STRENGTHS[int(np.argmin(losses))] if parts else 1.0)
    return Head(weights.astype(np.float32), bias.astype(np.float32), 1.0)


def _regression(embeddings: Floats, truth: Rows, c: float) -> tuple[Floats, Floats]:
    """scikit-learn's logistic regression with a quadratic penalty of 1/c: weights `(K, d)` and bias `(K,)`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty: the loss says which one to take
        model = LogisticRegression(C=c, max_iter=1000).fit(embeddings, truth)
    weights, bias = model.coef_, model.intercept_
    if len(bias) == 1:  # of two levels scikit-learn keeps the second's log-odds alone
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights, bias


def _log_loss(regression: tuple[Floats, Floats], embeddings: Floats, truth: Rows) -> float:
    """Sum of -log p of the truth."""
    weights, bias = regression
    logits = embeddings @ weights.T + bias
    return float((special.logsumexp(logits, axis=1) - logits[np.arange(len(truth)), truth]).sum())
