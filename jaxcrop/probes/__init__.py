"""Cheap probes: what the frozen features of a backbone hold, before any training."""
