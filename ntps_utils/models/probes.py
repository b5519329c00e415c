"""Linear and logistic probes of frozen features, and warnings about accuracies that mislead."""

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
from ntps_utils._utils.validation import check_integer
from ntps_utils.theory.layer_moments import one_hot
from ntps_utils.theory.linear import Array

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
IMBALANCE = 0.9  # share of the largest class of the test texts that raises a warning


class ProbeWarning(UserWarning):
    """The figures of a probe are likely to be misread."""


def warn_of_shared_texts(train: Sequence[str], test: Sequence[str] | None = None, share: float = 0.05) -> None:
    """Warn if many test texts are training texts too.

    Parameters
    ----------
    train : sequence of str
        Training texts.
    test : sequence of str, optional
        Test texts. By default the texts of ``train`` are used for both, by
        cross-validation, and repetitions are counted.
    share : float
        Share of the test texts above which to warn, in [0, 1].

    Warns
    -----
    ProbeWarning
        If the share is exceeded; the message states it.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_shared_texts(["good film", "bad film"], ["good film", "a film"])
    >>> str(caught[0].message)[:40]
    '50% of the test texts are training texts'
    """
    if test is None:
        n_shared, n = len(train) - len(set(train)), len(train)
        problem, judged = "texts repeat others", "accuracy of cross-validation"
    else:
        training_texts = set(train)
        n_shared, n = sum(text in training_texts for text in test), len(test)
        problem, judged = "test texts are training texts too", "test accuracy"
    observed = n_shared / max(n, 1)
    if observed > share:
        message = f"{observed:.0%} of the {problem}; the {judged} may reflect memorization. Remove duplicates."
        warnings.warn(with_reference("shared-texts", message), ProbeWarning, stacklevel=2)


def chance_adjusted(accuracy: float, labels: ArrayLike) -> float:
    """Rescale an accuracy so that always predicting the majority class scores 0.

    Parameters
    ----------
    accuracy : float
        Share of correct predictions, 0 to 1.
    labels : (n,) array_like
        True classes of the texts that were predicted.

    Returns
    -------
    float
        ``(accuracy - m) / (1 - m)`` with the share m of the majority class: 1 for perfect
        predictions, negative below the majority class, NaN if there is only one class.

    Examples
    --------
    >>> round(chance_adjusted(0.9, [0, 0, 0, 1]), 2)
    0.6
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
        Accuracy of the class with the largest prediction.
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
        Share of correct predictions.
    cv_accuracy : float
        Cross-validated accuracy on the training texts, at the chosen strength; NaN where a
        class has too few texts for folds.
    strength : float
        Inverse regularization that cross-validation chose (scikit-learn's ``C``).
    predictions : (n_test,) int64
        Predicted class of each test text.
    classes : (m,) int64
        Classes of the training texts.
    weights, biases : (m, d) and (m,) float64
        Coefficients of the class scores, which are linear in the standardized features.
    shift, scale : (d,) float64
        Mean and deviation of the training features, by which features are standardized; the deviation of a
        constant feature is 1.
    """

    train_accuracy: float
    test_accuracy: float
    cv_accuracy: float
    strength: float
    predictions: NDArray[np.int64]
    classes: NDArray[np.int64]
    weights: Array
    biases: Array
    shift: Array
    scale: Array

    def predict(self, features: ArrayLike) -> NDArray[np.int64]:
        """Classify new texts.

        Parameters
        ----------
        features : (n, d) array_like
            Features of the layers that the probe was fitted to, in the same order.

        Returns
        -------
        (n,) int64
            Class numbers.

        Raises
        ------
        ValueError
            If the shape differs from that of the training features, or a value is not finite.

        Examples
        --------
        >>> probe = logistic_probe([[0.0], [0.1], [2.0], [2.1]], [0, 0, 1, 1], [[0.2]], [0])
        >>> probe.predict([[0.3], [1.8]]).tolist()
        [0, 1]
        """
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.shift):
            raise ValueError(
                f"features must have the shape (n, {len(self.shift)}), like those that the probe was fitted to; got "
                f"{x.shape}."
            )
        if not np.isfinite(x).all():
            raise ValueError("features must be finite numbers; they contain NaN or infinity.")
        scores = (x - self.shift) / self.scale @ self.weights.T + self.biases
        return self.classes[scores.argmax(1)]


def linear_probe(
    train: ArrayLike, train_labels: ArrayLike, test: ArrayLike, test_labels: ArrayLike, *, n_classes: int | None = None
) -> LinearProbe:
    """Fit one-hot targets by least squares in closed form, with the minimum norm where it is not unique.

    Parameters
    ----------
    train, test : (n, d) array_like
        Features.
    train_labels, test_labels : (n,) array_like of int
        Classes 0 ... c - 1.
    n_classes : int, optional
        Number of classes c; by default one more than the largest label.

    Returns
    -------
    LinearProbe

    Raises
    ------
    ValueError
        If shapes differ, a feature is not finite, or labels are not class numbers.

    Warns
    -----
    ProbeWarning
        If there are no more texts than features, so that the training error is zero.

    See Also
    --------
    logistic_probe : Regularized probe, for accuracies that are compared with finetuning.

    Examples
    --------
    >>> x, y = [[0.0], [0.1], [2.0], [2.1]], [0, 0, 1, 1]
    >>> linear_probe(x, y, x, y).test_accuracy
    1.0
    """
    x, y, x_test, y_test = _validated(train, train_labels, test, test_labels)
    n_present = int(max(y.max(), y_test.max())) + 1
    if n_classes is not None:
        check_integer("n_classes", n_classes, n_present)
    c = n_classes or n_present
    if len(x) <= x.shape[1]:
        message = (
            f"{len(x)} texts for {x.shape[1]} features: a linear probe fits any labels of so few texts exactly. "
            "Use more texts, or read the test error only."
        )
        warnings.warn(with_reference("few-texts", message), ProbeWarning, stacklevel=2)
    mean, targets = x.mean(0), one_hot(y, c)
    weights = np.linalg.lstsq(x - mean, targets - targets.mean(0), rcond=None)[0]
    fitted, predicted = ((features - mean) @ weights + targets.mean(0) for features in (x, x_test))
    return LinearProbe(
        train_mse=float(((fitted - targets) ** 2).sum(1).mean()),
        test_mse=float(((predicted - one_hot(y_test, c)) ** 2).sum(1).mean()),
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
    """Fit a logistic probe and choose its regularization by cross-validation on the training texts.

    Parameters
    ----------
    train, test : (n, d) array_like
        Features; standardized by the mean and deviation of the training texts.
    train_labels, test_labels : (n,) array_like of int
        Class numbers.
    strengths : sequence of float
        Inverse regularizations to choose from.
    n_folds : int
        Number of folds, at most the size of the smallest class; with a class of one text
        the middle strength is used.
    seed : int
        Random seed for the folds.

    Returns
    -------
    LogisticProbe

    Raises
    ------
    ValueError
        If shapes differ, a feature is not finite, labels are not class numbers, or all
        training texts have one label.

    Warns
    -----
    ProbeWarning
        If a class occurs in the test texts only; if the accuracy of a binary task is far
        below one half, as it is when splits share texts with opposite labels; or if nearly
        all test texts have one class.

    See Also
    --------
    linear_probe : Least squares, whose error is the loss of the theory.

    Examples
    --------
    >>> x, y = [[0.0], [0.1], [2.0], [2.1]], [0, 0, 1, 1]
    >>> logistic_probe(x, y, [[0.2], [1.9]], [0, 1]).predictions.tolist()
    [0, 1]
    """
    x, y, x_test, y_test = _validated(train, train_labels, test, test_labels)
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2:
        raise ValueError(f"All {len(y)} training texts have the label {y[0]}; a probe needs at least two classes.")
    folds = min(n_folds, int(counts.min()))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, tol=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # for strengths that cross-validation does not choose
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
    accuracy = float(accuracy_score(y_test, predictions))
    for message in _problems(y, y_test, accuracy):
        warnings.warn(message, ProbeWarning, stacklevel=2)
    scaler, classifier = fitted[0], fitted[-1]
    weights, biases = classifier.coef_, classifier.intercept_
    if len(weights) == 1:  # scikit-learn stores one row for two classes
        weights, biases = np.vstack([-weights / 2, weights / 2]), np.concatenate([-biases / 2, biases / 2])
    return LogisticProbe(
        train_accuracy=float(accuracy_score(y, fitted.predict(x))),
        test_accuracy=accuracy,
        cv_accuracy=cv_accuracy,
        strength=float(strength),
        predictions=predictions.astype(np.int64),
        classes=classifier.classes_.astype(np.int64),
        weights=weights,
        biases=biases,
        shift=scaler.mean_,
        scale=scaler.scale_,
    )


def _problems(labels: NDArray[np.int64], test_labels: NDArray[np.int64], accuracy: float) -> list[str]:
    """Warnings about a test accuracy that is likely to be misread."""
    messages = []
    new_classes = sorted(set(test_labels.tolist()) - set(labels.tolist()))
    if new_classes:
        messages.append(
            f"Classes that occur in the test texts only, by number: {new_classes}. Every prediction of them is wrong. "
            "Use splits that share their classes."
        )
    n = len(test_labels)
    if len(np.unique(labels)) == 2 and accuracy < 0.5 - 4 * np.sqrt(0.25 / n):
        message = (
            f"The accuracy {accuracy:.2f} of a binary task is far below one half. Look for texts that are in both "
            "splits with opposite labels."
        )
        messages.append(with_reference("below-chance", message))
    counts = np.unique(test_labels, return_counts=True)[1]
    majority = float(counts.max() / n)
    if majority >= IMBALANCE and len(counts) > 1:
        message = (
            f"One class has {majority:.0%} of the texts to classify: always predicting it already has an accuracy of "
            f"{majority:.2f}. Report the chance-adjusted accuracy."
        )
        messages.append(with_reference("imbalance", message))
    return messages


def _validated(
    train: ArrayLike, train_labels: ArrayLike, test: ArrayLike, test_labels: ArrayLike
) -> tuple[Array, NDArray[np.int64], Array, NDArray[np.int64]]:
    x, x_test = np.asarray(train, dtype=np.float64), np.asarray(test, dtype=np.float64)
    y, y_test = np.asarray(train_labels), np.asarray(test_labels)
    for name, features, labels in (("train", x, y), ("test", x_test, y_test)):
        if features.ndim != 2 or labels.shape != (len(features),) or not len(labels):
            raise ValueError(
                f"{name}: features must have shape (n, d) and labels shape (n,), n at least 1; got {features.shape} "
                f"and {labels.shape}."
            )
        if not np.isfinite(features).all():
            raise ValueError(f"{name}: features must be finite numbers; they contain NaN or infinity.")
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise ValueError(
                f"{name}: labels must be class numbers 0, 1, ..., got {labels[:5].tolist()} ({labels.dtype})."
            )
    if x.shape[1] != x_test.shape[1]:
        raise ValueError(f"train and test must have the same features; train has {x.shape[1]}, test {x_test.shape[1]}.")
    return x, y, x_test, y_test
