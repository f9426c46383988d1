"""Training of the learned heads: numpy and scipy only, the same bytes from the same rows."""
