"""Training and evaluation: one jitted step over a mesh, checkpoints, metrics."""
