"""Kills processes while traffic flows, then compares what is there with a recomputation of the same log."""
