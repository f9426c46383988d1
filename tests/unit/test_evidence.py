"""Every alarm can be computed again from the counts that it carries."""

import msgspec
import numpy as np
import pytest

from bellbuoy.counting import counted
from core.evidence import add_reference, log_likelihood
from schemas.messages import WINDOW_MS, AlertTransition, BinCounts, Detection
from tests.timeline import FIRST, Behaviour, Timeline, rules, traffic


@pytest.fixture(scope="module")
def story() -> Timeline:
    """2,000 interactions as the reference, normal ones, then more refusals, longer answers and another topic."""
    it, rng = Timeline(rules=rules()), np.random.default_rng(5)
    it.at([[traffic(rng, 100, Behaviour())] for _ in range(60)])
    it.at([[traffic(rng, 100, Behaviour(refusal=0.3, new_topic=0.4))] for _ in range(30)])
    return it


def alarms(story: Timeline) -> list[Detection]:
    found = alarms_of(story)
    assert {"refusal", "topic.mix"} <= {d.metric for d in found}
    return found


def test_every_contribution_has_counts_that_give_its_likelihood_again(story: Timeline) -> None:
    for detection in alarms(story):
        for contribution in detection.contributions:
            counts = contribution.counts
            assert counts is not None
            assert log_likelihood(counts) == pytest.approx(counts.log_likelihood, rel=1e-3)
            assert contribution.after == pytest.approx(counts.hits / counts.events, rel=1e-5)


def test_the_references_counts_give_the_rate_before(story: Timeline) -> None:
    for detection in alarms(story):
        for contribution in detection.contributions:
            counts = contribution.counts
            assert counts is not None
            assert counts.reference_events is not None
            assert counts.reference_events > 0
            assert counts.reference_hits is not None
            assert contribution.before == pytest.approx(counts.reference_hits / counts.reference_events, rel=1e-5, abs=1e-9)


def test_the_counts_since_the_onset_are_those_of_the_windows(story: Timeline) -> None:
    (refusal,) = [d for d in alarms(story) if d.metric == "refusal"]
    counts = refusal.contributions[0].counts
    assert counts is not None
    rows = [r for _, out in story.outputs for r in out.rows if r.metric == "refusal@1" and r.resolution == 5]
    since = [r for r in rows if counts.onset <= r.window <= refusal.window]
    assert counts.onset == FIRST + 60 * WINDOW_MS
    assert (sum(r.n for r in since), sum(dict(zip(r.bins, r.counts, strict=True)).get(1, 0) for r in since)) == (
        counts.events,
        counts.hits,
    )


def test_the_band_lies_beyond_the_references_rate_in_the_judged_direction(story: Timeline) -> None:
    for detection in alarms(story):
        for contribution in detection.contributions:
            counts = contribution.counts
            assert counts is not None
            assert (counts.band > contribution.before) if counts.up else (counts.band < contribution.before)


def test_an_alert_carries_the_counts_of_its_detection_and_tells_them(story: Timeline) -> None:
    fired = next(t for _, out in story.outputs for t in out.alerts if t.metric == "refusal" and t.state == "firing")
    counts = fired.contributions[0].counts
    assert counts is not None
    lines = counted(fired)
    assert f"{counts.reference_hits:,} of {counts.reference_events:,}" in "\n".join(lines)
    assert f"{counts.hits:,} of {counts.events:,}" in "\n".join(lines)
    assert f"{counts.log_likelihood:.6g}" in "\n".join(lines)


def test_an_alert_of_an_older_release_says_that_it_has_no_counts(story: Timeline) -> None:
    fired = next(t for _, out in story.outputs for t in out.alerts if t.metric == "refusal")
    plain = msgspec.to_builtins(fired)
    for contribution in plain["contributions"]:
        del contribution["counts"]
    (line,) = counted(msgspec.convert(plain, AlertTransition))
    assert line.startswith("no counts")


@pytest.mark.parametrize(("metric", "hits"), [("refusal", 7), ("latency", 12), ("topic", 7)])
def test_on_a_ladder_a_bin_means_it_and_all_above(metric: str, hits: int) -> None:
    counts = BinCounts(up=True, onset=0, hits=1, events=2, band=0.1, tilt=0.4, log_likelihood=0.0)
    add_reference(counts, metric, 1, {0: 80, 1: 7, 2: 5})
    assert (counts.reference_hits, counts.reference_events) == (hits, 92)


def test_an_alarm_by_a_grown_reference_has_the_counts_of_that_one() -> None:
    it, rng = Timeline(rules=rules()), np.random.default_rng(7)
    it.at([[traffic(rng, 20, Behaviour())] for _ in range(3_000)])
    it.at([[traffic(rng, 100, Behaviour(refusal=0.06))] for _ in range(60)])
    counts = [c.counts for d in alarms_of(it) for c in d.contributions if c.counts is not None]
    before = [c.before for d in alarms_of(it) for c in d.contributions if c.counts is not None]
    assert any(one.grown for one in counts)
    for one, rate in zip(counts, before, strict=True):
        assert one.reference_events
        assert rate == pytest.approx((one.reference_hits or 0) / one.reference_events, rel=1e-5, abs=1e-9)


def alarms_of(story: Timeline) -> list[Detection]:
    return [detection for _, out in story.outputs for detection in out.detections]
