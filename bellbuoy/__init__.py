"""The command line and the embedded stack."""

import os

# Every process is one of many on its machine, and its matrices are small: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

__version__ = "0.1.0"
