"""Measurements. What is told per core is measured on one thread, the peers' as ours."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
