"""Figures of scores against labels, beside scikit-learn's where it is installed."""

import math

import numpy as np
import pytest

from core.evaluation import (
    RANKING,
    Curve,
    average_precision,
    brier,
    difference,
    evaluate,
    recall_at,
    resampled,
)


def rows(seed: int, count: int = 500, levels: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and values with many ties that tell something of them."""
    draw = np.random.default_rng(seed)
    labels = (draw.random(count) < 0.2).astype(np.int64)
    return labels, np.floor(np.clip(draw.normal(0.3 + 0.3 * labels, 0.2), 0, 1) * levels) / levels


@pytest.mark.parametrize("seed", range(5))
def test_ranking_equals_scikit_learns(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, values = rows(seed)
    counts = Curve(labels, values).counts()
    assert float(RANKING["auprc"](*counts)) == pytest.approx(metrics.average_precision_score(labels, values))
    assert float(RANKING["auroc"](*counts)) == pytest.approx(metrics.roc_auc_score(labels, values))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_recall_equals_the_best_point_of_scikit_learns_curve(share: float) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, values = rows(7)
    false, true, _ = metrics.roc_curve(labels, values, drop_intermediate=False)
    assert float(recall_at(share)(*Curve(labels, values).counts())) == pytest.approx(true[false <= share].max())


def test_brier_equals_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, values = rows(3)
    assert float(brier(labels, values, np.ones(len(labels)))) == pytest.approx(metrics.brier_score_loss(labels, values))


def test_weights_count_like_repeated_rows() -> None:
    labels, values = rows(1)
    weights = np.random.default_rng(0).integers(0, 4, len(labels))
    repeated = Curve(np.repeat(labels, weights), np.repeat(values, weights)).counts()
    weighted = Curve(labels, values).counts(weights.astype(float))
    for statistic in RANKING.values():
        assert float(statistic(*weighted)) == pytest.approx(float(statistic(*repeated)))


def test_equal_values_tell_nothing() -> None:
    labels = np.array([1, 0, 0, 1])
    figures = evaluate(labels, np.full(4, 0.3), np.zeros(4, bool)).figures
    assert (figures["auroc"].value, figures["auprc"].value, figures["recall_at_5"].value) == (0.5, 0.5, 0.0)


def test_the_interval_holds_the_value_and_is_the_same_every_time() -> None:
    labels, values = rows(2)
    first, second = (evaluate(labels, values, values > 0.5, seed=4) for _ in range(2))
    assert first == second
    assert all(figure.low <= figure.value <= figure.high for name, figure in first.figures.items() if name != "calibration_error")


def test_rows_of_one_class_have_no_ranking() -> None:
    result = evaluate(np.zeros(5, np.int64), np.linspace(0, 1, 5), np.array([False] * 4 + [True]))
    assert math.isnan(result.figures["auroc"].value)
    assert result.figures["over_blocking"].value == pytest.approx(0.2)


def test_no_rows_have_no_figures() -> None:
    assert evaluate(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool)).figures == {}


def test_a_bootstrap_sample_keeps_the_number_of_each_class() -> None:
    labels, _ = rows(5)
    weights = resampled(labels, 3, np.random.default_rng(0))
    assert (weights @ labels).tolist() == [labels.sum()] * 3
    assert weights.sum(axis=1).tolist() == [len(labels)] * 3


def test_a_better_ranking_has_a_positive_difference() -> None:
    labels, values = rows(6, 2_000)
    better = difference(labels, values, values + 0.2 * labels, average_precision)
    assert better.low > 0


def test_the_same_values_differ_by_nothing() -> None:
    labels, values = rows(6)
    assert difference(labels, values, values) == difference(labels, values, values.copy())
    assert difference(labels, values, values).value == 0.0


@pytest.mark.parametrize(("labels", "values"), [([2], [0.1]), ([1], [math.nan]), ([1, 0], [0.5])])
def test_labels_and_values_that_do_not_fit_are_refused(labels: list[int], values: list[float]) -> None:
    with pytest.raises(ValueError, match="as many finite values as labels"):
        Curve(labels, values)
