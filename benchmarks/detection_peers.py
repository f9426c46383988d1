"""Peers on the same streams as the product's detectors, each tuned by simulation to the same run length, A = 100,000 events.

Those with a threshold on a window get the quantile of their own score in windows without change; those that watch a stream are
tuned by playing a stream without change. Packages are installed into throwaway environments; where one cannot be, pip's reason
is printed.
"""

import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.stats import ks_2samp

from benchmarks.detection_core import Detector, Floats, Ints, own_delta, quantiles, say
from benchmarks.detection_feedback import delays
from benchmarks.detection_topics import PACKAGES, Corpus, Texts, corpus, delay, layout_for, shifts
from benchmarks.report import emit
from benchmarks.scoring_peers import InstalledPeer, Peer, PeerFailed
from core.metrics import TOPIC_MIX

BUDGET: Final = 1e5
N0: Final = 5_000
SIZE: Final = 500
NULL, SHIFTED = 400, 60
SEEDS: Final = 30
Windows = dict[str, list[tuple[Ints, Ints]]]
"""By what was drawn (`none`, or a shift) the windows: cells and distances."""

_RIVER: Final = """
import json, random, sys, time
from river import drift
given = json.load(open(sys.argv[1]))
kinds = {"ADWIN": lambda v: drift.ADWIN(delta=v), "PageHinkley": lambda v: drift.PageHinkley(threshold=v)}
settings = {"ADWIN": [.05, .02, .01, .005, .002, .001, 3e-4, 1e-4, 1e-5], "PageHinkley": [20, 30, 40, 50, 60, 80, 100, 140]}
rng = random.Random(1)
out = {}
for name, make in kinds.items():
    for value in settings[name]:
        detector, alarms, most = make(value), 0, int(given["length"] / given["budget"])
        started = time.process_time()
        for n in range(given["length"]):
            detector.update(float(rng.random() < given["before"]))
            alarms += detector.drift_detected
            if alarms > most:
                break
        cost = (time.process_time() - started) / (n + 1)
        if alarms <= most:
            break
    delays = []
    for _ in range(given["changes"]):
        detector = make(value)
        for n in range(given["reference"]):
            detector.update(float(rng.random() < given["before"]))
        for n in range(20_000):
            detector.update(float(rng.random() < given["after"]))
            if detector.drift_detected:
                break
        delays.append(n + 1)
    out[name] = {"setting": value, "alarms": alarms, "delay": sorted(delays)[len(delays) // 2], "cost": cost}
print(json.dumps(out))
"""
_EVIDENTLY: Final = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import pandas
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
given = json.load(open(sys.argv[1]))
columns = DataDefinition(numerical_columns=["distance"], categorical_columns=["cell"])
def data(window):
    frame = pandas.DataFrame({"cell": [str(c) for c in window[0]], "distance": window[1]})
    return Dataset.from_pandas(frame, data_definition=columns)
reference, report, scores = data(given["reference"]), Report([DataDriftPreset()]), {}
started = time.process_time()
for name, windows in given["windows"].items():
    scores[name] = []
    for window in windows:
        metrics = report.run(data(window), reference).dict()["metrics"]
        scores[name].append([float(m["value"]) for m in metrics if m["metric_name"].startswith("ValueDrift")])
spent = time.process_time() - started
print(json.dumps({"scores": scores, "seconds": spent, "limits": [.1, .1]}))
"""
_ALIBI: Final = """
import json, math, sys, time
import numpy
from alibi_detect.cd import ChiSquareDrift, KSDrift
given = json.load(open(sys.argv[1]))
cells = [int(c) for c in given["reference"][0]]
far = KSDrift(numpy.array(given["reference"][1], dtype=float)[:, None], p_val=.05)
topic = ChiSquareDrift(numpy.array(cells)[:, None], p_val=.05, categories_per_feature={0: list(range(64))})
def log(p):
    return -math.log10(max(float(p), 1e-300)) if p == p else 0.0
scores = {}
started = time.process_time()
for name, windows in given["windows"].items():
    scores[name] = []
    for window in windows:
        ks = far.predict(numpy.array(window[1], dtype=float)[:, None])["data"]["p_val"][0]
        chi = topic.predict(numpy.array(window[0])[:, None])["data"]["p_val"][0]
        scores[name].append([log(ks), log(chi)])
spent = time.process_time() - started
print(json.dumps({"scores": scores, "seconds": spent, "limits": [1.301, 1.301]}))
"""


def run() -> None:
    """Feedback against stream detectors, topics against window tests."""
    texts = corpus()
    feedback = quantiles(delays(N0, BUDGET, 200, kind="both"))[0]
    say(f"peers.feedback.ours.n0={N0}.A={BUDGET:g}", feedback, "events (median of 200)", PACKAGES)
    ours = _ours(texts)
    windows = _windows(texts, np.random.default_rng(5))
    reference = _window([(texts.base, texts.base.draw(N0, np.random.default_rng(6)))])
    for name, score in (("PSI of cells", _psi), ("KS of the distance", _ks)):
        began = time.process_time()
        scores = {what: [[score(reference, one)] for one in some] for what, some in windows.items()}
        spent = time.process_time() - began
        _judge(name, {"scores": scores, "seconds": spent, "limits": [0.2 if score is _psi else 1.301]}, ours)
    given = {"reference": _plain(reference), "windows": {what: [_plain(one) for one in some] for what, some in windows.items()}}
    stream = {"before": 0.15, "after": 0.2, "budget": BUDGET, "length": 2_000_000, "changes": 200, "reference": N0}
    with tempfile.TemporaryDirectory() as folder:
        for peer, program, to in (
            (Peer("river", ("river",), "", 0), _RIVER, stream),
            (Peer("evidently", ("evidently", "pandas<3"), "", 0), _EVIDENTLY, given),
            (Peer("alibi_detect", ("alibi-detect",), "", 0), _ALIBI, given),
            (Peer("glide", ("glide-py",), "", 0), "print('{}')", {}),
        ):
            print(f"{peer.name}: installing {', '.join(peer.packages)}", file=sys.stderr, flush=True)
            try:
                found = InstalledPeer(peer, Path(folder)).run(program, to)
            except PeerFailed as error:
                print(f"{peer.name}: {error}", file=sys.stderr, flush=True)
                continue
            if peer.name == "river":
                _say_river(found, feedback)
            elif found:
                _judge(peer.name, found, ours)


def _ours(texts: Corpus) -> dict[str, float]:
    ours = {}
    for name, draw in shifts(texts).items():
        found = []
        for seed in range(SEEDS):
            rng = np.random.default_rng((N0, seed, 9))
            detector = Detector(layout_for(texts, N0, rng, own_delta(TOPIC_MIX)), BUDGET)
            found.append(delay(detector, draw, rng))
        ours[name] = quantiles(found)[0]
        say(f"peers.topics.ours.{name}.n0={N0}.A={BUDGET:g}", ours[name], f"events (median of {SEEDS})", PACKAGES)
    return ours


def _windows(texts: Corpus, rng: np.random.Generator) -> Windows:
    windows: Windows = {"none": [_window([(texts.base, texts.base.draw(SIZE, rng))]) for _ in range(NULL)]}
    for name, draw in shifts(texts).items():
        windows[name] = [_window([part for _ in range(SIZE // 100) for part in draw(0, rng)]) for _ in range(SHIFTED)]
    return windows


def _window(parts: Sequence[tuple[Texts, Ints]]) -> tuple[Ints, Ints]:
    return np.concatenate([t.cell[d] for t, d in parts]), np.concatenate([t.distance[d] for t, d in parts])


def _plain(window: tuple[Ints, Ints]) -> list[list[int]]:
    return [part.tolist() for part in window]


def _psi(reference: tuple[Ints, Ints], window: tuple[Ints, Ints]) -> float:
    p, q = ((np.bincount(one[0], minlength=64) + 0.5) / (len(one[0]) + 32.0) for one in (reference, window))
    return float(((q - p) * np.log(q / p)).sum())


def _ks(reference: tuple[Ints, Ints], window: tuple[Ints, Ints]) -> float:
    return -math.log10(max(float(ks_2samp(reference[1], window[1]).pvalue), 1e-300))


def _judge(name: str, found: dict[str, Any], ours: dict[str, float]) -> None:
    """Tune a peer's scores to the run length and say its delays; and what its own limits would have done."""
    null: Floats = np.array(found["scores"]["none"], dtype=np.float64)
    columns = null.shape[1]
    limits = np.quantile(null, 1 - SIZE / BUDGET / columns, axis=0)
    events = SIZE * sum(len(some) for some in found["scores"].values())
    emit(f"peers.{name}.cost", 1e6 * found["seconds"] / events, "us CPU an event", PACKAGES)
    own = (null > np.array(found["limits"])).any(axis=1).mean()
    emit(f"peers.{name}.own limits.false alarms", 1e5 / SIZE * float(own), "a 100,000 events", PACKAGES)
    for shift, median in ours.items():
        scores = np.array(found["scores"][shift], dtype=np.float64)
        p = float((scores > limits).any(axis=1).mean())
        delay_ = SIZE if p >= 0.5 else math.inf if p == 0 else SIZE * math.ceil(math.log(0.5) / math.log1p(-p))
        own = (scores > np.array(found["limits"])).any(axis=1).mean()
        unit = f"events (median; {delay_ / median:.2f} of ours; its own limits see {100 * own:.0f} % of the windows)"
        say(f"peers.{name}.{shift}", delay_, unit, PACKAGES)


def _say_river(found: dict[str, Any], ours: float) -> None:
    for name, one in found.items():
        unit = (
            f"events (median; setting {one['setting']}, {one['alarms']} alarms in 2e6 events; {one['delay'] / ours:.2f} of ours)"
        )
        say(f"peers.river.{name}", one["delay"], unit, ())
        emit(f"peers.river.{name}.cost", 1e6 * one["cost"], "us CPU an event", ())
