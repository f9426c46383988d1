"""Logistic regression on the factored matrix: naive-Bayes weighted features, ridge penalty, L-BFGS."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from core.scoring.features import BUCKETS
from core.training.matrix import Matrix

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """Choices of the fit: `ridge` on n-grams, `embedding_ridge` on the embedding, `smoothing` of the naive-Bayes ratio.

    Penalties fall with the root of the number of rows only: rows of one source say less than as many of several.
    """

    ridge: float = 0.04
    embedding_ridge: float = 0.004
    smoothing: float = 1.0
    nb_power: float = 1.0
    least_windows: int = 2
    steps: int = 25


@dataclass(frozen=True, eq=False)
class Linear:
    """One head in real numbers: weights by bucket, by dimension of the embedding, and a bias."""

    weights: Vector
    embedding: Vector
    bias: float

    def scores(self, matrix: Matrix) -> Vector:
        """The logit of each window."""
        per_word = matrix.ngrams @ self.weights + matrix.vectors @ self.embedding
        return np.asarray((matrix.words @ per_word + matrix.pairs @ self.weights) * matrix.scale + self.bias)


def fit(matrix: Matrix, labels: NDArray[np.int8], weight: Vector, recipe: Recipe) -> Linear:
    """Fit windows (all of the matrix) to labels 0 and 1 under weights per window."""
    words_t = csr_array(matrix.words.T)

    def back(values: Vector) -> Vector:
        return np.asarray(matrix.ngrams.T @ (words_t @ values) + matrix.pairs.T @ values)

    total = float(weight.sum())
    weight = weight / total
    signs = np.where(labels > 0, 1.0, -1.0)
    positive, negative = (back(np.where(labels == label, weight, 0.0) * total) for label in (1, 0))
    share = float(positive.sum()), float(negative.sum())
    ratio = np.log((positive + recipe.smoothing) / (share[0] + recipe.smoothing * BUCKETS)) - np.log(
        (negative + recipe.smoothing) / (share[1] + recipe.smoothing * BUCKETS)
    )
    active = np.flatnonzero(back(np.ones(len(weight))) >= recipe.least_windows)
    factor = np.abs(ratio[active]) ** recipe.nb_power
    ngrams, pairs = (csr_array(one[:, active]) for one in (matrix.ngrams, matrix.pairs))
    ngrams_t, pairs_t = csr_array(ngrams.T), csr_array(pairs.T)
    penalty, embedding_penalty = recipe.ridge / sqrt(total), recipe.embedding_ridge / sqrt(total)
    count = len(active)

    def loss(point: Vector) -> tuple[float, Vector]:
        weights, embedding, bias = point[:count] * factor, point[count:-1], point[-1]
        per_word = ngrams @ weights + matrix.vectors @ embedding
        margin = signs * ((matrix.words @ per_word + pairs @ weights) * matrix.scale + bias)
        slope = -signs * weight * expit(-margin)
        scaled = slope * matrix.scale
        per_word_slope = words_t @ scaled
        gradient = np.concatenate(
            (
                factor * (ngrams_t @ per_word_slope + pairs_t @ scaled) + penalty * point[:count],
                matrix.vectors.T @ per_word_slope + embedding_penalty * embedding,
                [slope.sum()],
            )
        )
        ridge = penalty * float(point[:count] @ point[:count]) + embedding_penalty * float(embedding @ embedding)
        return float(weight @ np.logaddexp(0.0, -margin)) + 0.5 * ridge, gradient

    found = minimize(
        loss,
        np.zeros(count + matrix.vectors.shape[1] + 1),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": recipe.steps, "maxcor": 6},
    ).x
    learned = np.zeros(BUCKETS)
    learned[active] = found[:count] * factor
    return Linear(learned, found[count:-1], float(found[-1]))
