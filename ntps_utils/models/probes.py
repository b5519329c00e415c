"""Probes: how well a linear classifier reads a task off frozen features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ntps_utils._utils.diagnostics import with_reference

Array = NDArray[np.float64]
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
IMBALANCE = 0.9


class ProbeWarning(UserWarning):
    """A probe was fitted, but its figures say less than they seem to."""


def warn_of_shared_texts(train: Sequence[str], test: Sequence[str] | None = None, share: float = 0.05) -> None:
    """Warn if many texts that a probe is tested on are texts that it was trained on.

    Parameters
    ----------
    train : sequence of str
    test : sequence of str, optional
        By default the texts of ``train`` are both, by cross-validation, and repeats count.
    share : float
        Of the test texts, above which to warn.

    Warns
    -----
    ProbeWarning
        Once, with the share.
    """
    if test is None:
        found, where = 1.0 - len(set(train)) / max(len(train), 1), "repeat others"
    else:
        known = set(train)
        found, where = sum(text in known for text in test) / max(len(test), 1), "are training texts too"
    if found > share:
        said = f"{found:.0%} of the texts to test on {where}: remembering them counts as understanding. Drop repeats."
        warnings.warn(with_reference("shared-texts", said), ProbeWarning, stacklevel=2)


def chance_adjusted(accuracy: float, labels: ArrayLike) -> float:
    """Accuracy on a scale from 0 (the majority class, always) to 1: ``(a - m) / (1 - m)``.

    Parameters
    ----------
    accuracy : float
    labels : (n,) array_like
        The true classes of the texts that it was measured on.
    """
    counts = np.unique(np.asarray(labels), return_counts=True)[1]
    majority = counts.max() / counts.sum()
    return float((accuracy - majority) / (1.0 - majority)) if majority < 1.0 else float("nan")


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """The least-squares predictor of one-hot targets, with an intercept.

    Attributes
    ----------
    train_mse, test_mse : float
        Squared error summed over classes, mean over texts: the loss of the theory.
    train_accuracy, test_accuracy : float
        Of the class with the largest prediction.
    """

    train_mse: float
    test_mse: float
    train_accuracy: float
    test_accuracy: float


@dataclass(frozen=True, eq=False)
class LogisticProbe:
    """Multinomial logistic regression on standardized features.

    Attributes
    ----------
    train_accuracy, test_accuracy : float
    cv_accuracy : float
        Of cross-validation on the training texts, at the strength chosen; NaN where a class
        has too few texts for folds.
    strength : float
        Inverse regularization that cross-validation chose (scikit-learn's ``C``).
    predictions : (n_test,) int64
    classes : (m,) int64
        Classes seen in training.
    weights, biases : (m, d) and (m,) float64
        Of the class scores, linear in standardized features.
    """

    train_accuracy: float
    test_accuracy: float
    cv_accuracy: float
    strength: float
    predictions: NDArray[np.int64]
    classes: NDArray[np.int64]
    weights: Array
    biases: Array


def linear_probe(
    train: ArrayLike, train_labels: ArrayLike, test: ArrayLike, test_labels: ArrayLike, *, n_classes: int | None = None
) -> LinearProbe:
    """Fit one-hot targets by least squares; closed form, minimum norm where it is not unique.

    Parameters
    ----------
    train, test : (n, d) array_like
        Features.
    train_labels, test_labels : (n,) array_like of int
        Classes 0 ... c - 1.
    n_classes : int, optional
        c, by default one more than the largest label.

    Warns
    -----
    ProbeWarning
        With no more texts than features: the training figures then say nothing.
    """
    x, y, x_test, y_test = _checked(train, train_labels, test, test_labels)
    c = n_classes or int(max(y.max(), y_test.max())) + 1
    if len(x) <= x.shape[1]:
        warnings.warn(
            with_reference(
                "few-texts",
                f"{len(x)} texts for {x.shape[1]} features: a linear probe fits them exactly, whatever they are.",
            ),
            ProbeWarning,
            stacklevel=2,
        )
    mean, targets = x.mean(0), np.eye(c)[y]
    weights = np.linalg.lstsq(x - mean, targets - targets.mean(0), rcond=None)[0]
    fitted, predicted = ((features - mean) @ weights + targets.mean(0) for features in (x, x_test))
    return LinearProbe(
        train_mse=float(((fitted - targets) ** 2).sum(1).mean()),
        test_mse=float(((predicted - np.eye(c)[y_test]) ** 2).sum(1).mean()),
        train_accuracy=float(np.mean(fitted.argmax(1) == y)),
        test_accuracy=float(np.mean(predicted.argmax(1) == y_test)),
    )


def logistic_probe(
    train: ArrayLike,
    train_labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    *,
    strengths: Sequence[float] = STRENGTHS,
    n_folds: int = 3,
    seed: int = 0,
) -> LogisticProbe:
    """Fit a logistic probe, its regularization chosen by cross-validation on the training texts.

    Parameters
    ----------
    train, test : (n, d) array_like
        Features; standardized by the training texts' mean and deviation.
    train_labels, test_labels : (n,) array_like of int
    strengths : sequence of float
        Inverse regularizations to choose from.
    n_folds : int
        Lowered to the size of the smallest class; with a class of one text the middle
        strength is taken.
    seed : int
        Of the folds.

    Warns
    -----
    ProbeWarning
        If a class was seen in the test texts only; the accuracy of two classes lies far
        below one half, which points to texts that are shared between the splits; or nearly
        all test texts have one class.
    """
    x, y, x_test, y_test = _checked(train, train_labels, test, test_labels)
    if len(np.unique(y)) < 2:
        raise ValueError("All training texts have one label; a probe needs at least two classes.")
    folds = min(n_folds, int(np.unique(y, return_counts=True)[1].min()))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, tol=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of strengths that validation then passes over
        if folds >= 2:
            search = GridSearchCV(
                probe,
                {"logisticregression__C": list(strengths)},
                cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
            ).fit(x, y)
            fitted, strength = search.best_estimator_, search.best_params_["logisticregression__C"]
            cv_accuracy = float(search.best_score_)
        else:
            strength, cv_accuracy = sorted(strengths)[len(strengths) // 2], float("nan")
            fitted = probe.set_params(logisticregression__C=strength).fit(x, y)
    predictions = fitted.predict(x_test)
    accuracy = accuracy_score(y_test, predictions)
    unseen = sorted(set(y_test.tolist()) - set(y.tolist()))
    if unseen:
        warnings.warn(f"The classes {unseen} are in the test texts only.", ProbeWarning, stacklevel=2)
    classifier = fitted[-1]
    weights, biases = classifier.coef_, classifier.intercept_
    if len(weights) == 1:  # scikit-learn keeps one row for two classes
        weights, biases = np.vstack([-weights / 2, weights / 2]), np.concatenate([-biases / 2, biases / 2])
    n_classes = len(np.unique(y))
    if n_classes == 2 and accuracy < 0.5 - 4 * np.sqrt(0.25 / len(y_test)):
        said = (
            f"The accuracy {accuracy:.2f} of a binary task is far below one half: look for texts that stand in both "
            "splits with opposite labels."
        )
        warnings.warn(with_reference("below-chance", said), ProbeWarning, stacklevel=2)
    commonest = float(np.unique(y_test, return_counts=True)[1].max() / len(y_test))
    if commonest >= IMBALANCE and len(np.unique(y_test)) > 1:
        said = (
            f"One class has {commonest:.0%} of the test texts, so that an accuracy of {commonest:.2f} means nothing; "
            "read the chance-adjusted one."
        )
        warnings.warn(with_reference("imbalance", said), ProbeWarning, stacklevel=2)
    return LogisticProbe(
        train_accuracy=float(accuracy_score(y, fitted.predict(x))),
        test_accuracy=float(accuracy),
        cv_accuracy=cv_accuracy,
        strength=float(strength),
        predictions=predictions.astype(np.int64),
        classes=classifier.classes_.astype(np.int64),
        weights=weights,
        biases=biases,
    )


def _checked(
    train: ArrayLike, train_labels: ArrayLike, test: ArrayLike, test_labels: ArrayLike
) -> tuple[Array, NDArray[np.int64], Array, NDArray[np.int64]]:
    x, x_test = np.asarray(train, dtype=np.float64), np.asarray(test, dtype=np.float64)
    y, y_test = np.asarray(train_labels), np.asarray(test_labels)
    for name, features, labels in (("train", x, y), ("test", x_test, y_test)):
        if features.ndim != 2 or labels.shape != (len(features),) or not len(labels):
            raise ValueError(
                f"{name}: features of shape (n, d) and labels of shape (n,) are needed, got {features.shape} and "
                f"{labels.shape}."
            )
        if not np.isfinite(features).all():
            raise ValueError(f"{name}: features must be finite numbers.")
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise ValueError(f"{name}: labels must be class numbers 0, 1, ..., got {labels.dtype}.")
    if x.shape[1] != x_test.shape[1]:
        raise ValueError(f"train has {x.shape[1]} features, test {x_test.shape[1]}.")
    return x, y, x_test, y_test
