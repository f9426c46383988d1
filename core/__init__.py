"""Rules without I/O: deterministic, told the time, integers where results must be equal."""
