"""An alarm's counts, so that its evidence can be computed again by hand."""

import math
from collections.abc import Mapping

from core.metrics import METRICS
from schemas.messages import BinCounts


def add_reference(counts: BinCounts, metric: str, first: int, reference: Mapping[int, int]) -> None:
    """Fill in how many of the reference's events fell into the bin that begins with `first`: on a ladder that bin and all above it."""
    ladder = METRICS[metric].kind in ("number", "distance")
    counts.reference_events = sum(reference.values())
    counts.reference_hits = sum(count for bin_, count in reference.items() if bin_ == first or (ladder and bin_ > first))


def alternative(counts: BinCounts) -> float:
    """q = expit(logit(band) +- tilt).

    >>> round(alternative(BinCounts(up=True, onset=0, hits=3, events=4, band=0.5, tilt=0.4, log_likelihood=0.0)), 4)
    0.5987
    """
    tilt = counts.tilt if counts.up else -counts.tilt
    return 1.0 / (1.0 + math.exp(-math.log(counts.band / (1.0 - counts.band)) - tilt))


def log_likelihood(counts: BinCounts) -> float:
    """x ln(q/p) + (n - x) ln((1 - q)/(1 - p)), from the counts alone.

    >>> counts = BinCounts(up=True, onset=0, hits=60, events=100, band=0.029, tilt=1.6, log_likelihood=0.0)
    >>> round(log_likelihood(counts), 2)
    85.15
    """
    p, q = counts.band, alternative(counts)
    return counts.hits * math.log(q / p) + (counts.events - counts.hits) * math.log((1.0 - q) / (1.0 - p))
