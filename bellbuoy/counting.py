"""An alarm by its counts, in lines that anybody can compute again."""

import math

from bellbuoy.cli.printing import harmless, percent, when
from core.evidence import alternative, log_likelihood
from schemas.messages import AlertTransition, Contribution


def counted(alert: AlertTransition) -> list[str]:
    """The counts behind an alert's evidence, bin by bin; says so where a release that kept none raised it."""
    lines = [
        f"evidence {alert.statistic:,.6g}, threshold {alert.threshold:,.6g} (seconds of the budget over the weights of metric and slice)",
        "each bin: L = x ln(q/p) + (n - x) ln((1-q)/(1-p)) with x of n since its onset; p: how far the reference's own error reaches",
    ]
    kept = [contribution for contribution in alert.contributions if contribution.counts is not None]
    if not kept:
        return ["no counts: this alert was raised without any, or by a release that kept none"]
    for contribution in kept:
        lines += _bin(contribution)
    return lines


def _bin(contribution: Contribution) -> list[str]:
    counts = contribution.counts
    assert counts is not None
    p, q = counts.band, alternative(counts)
    missed = counts.events - counts.hits
    reference = "not kept"
    if counts.reference_events:
        hits, events = counts.reference_hits or 0, counts.reference_events
        reference = f"{hits:,} of {events:,} ({percent(hits / events)})"
    now = f"{counts.hits:,} of {counts.events:,} ({percent(counts.hits / max(counts.events, 1))})"
    return [
        f"{harmless(contribution.name)} [{harmless(contribution.bin)}], {'more' if counts.up else 'fewer'} than normal",
        f"    reference   {reference}; p = {p:.6g}",
        f"    since       {when(counts.onset)}: {now}",
        f"    L           {counts.hits:,} x {math.log(q / p):.6f} + {missed:,} x {math.log((1 - q) / (1 - p)):.6f} = "
        f"{log_likelihood(counts):.4f}   (q = {q:.6g}; recorded {counts.log_likelihood:.6g})",
    ]
