"""A small table of heads for unit tests: seeded weights, so that some texts fire and most do not; none with a low enough bias."""

from functools import cache

import numpy as np

from core.scoring.features import BUCKETS
from core.scoring.heads import COMBINED
from core.training.calibration import curve
from core.training.examples import HEADS
from schemas.heads import FINE_LENGTHS, LENGTHS, HeadTable, head_table

LEVELS = 1_024


@cache
def heads_twin(dimensions: int = 32, bias: int = -60) -> HeadTable:
    draw = np.random.default_rng(11)
    count, names = len(HEADS), (*HEADS, *COMBINED)
    weights = np.where(draw.random((BUCKETS, count)) < 0.2, draw.integers(-40, 41, (BUCKETS, count)), 0).astype(np.int8)
    return head_table(
        names,
        ("en",),
        {
            "weights": weights,
            "embedding": draw.integers(-200, 201, (dimensions, count)).astype(np.int16),
            "embedding_shift": np.full(count, 10, np.int64),
            "bias": np.full(count, bias, np.int64),
            "length_shift": np.zeros((len(names), LENGTHS), np.int64),
            "fine_shift": np.zeros((len(names), FINE_LENGTHS), np.int64),
            "first_window": np.array([name == "refusal" for name in HEADS]),
            "low": np.array([-LEVELS // 2] * count + [LEVELS // 2] * len(COMBINED), np.int64),
            "rate": np.full(len(names), 1 << 16, np.int64),
            "values": curve(LEVELS),
        },
    )
