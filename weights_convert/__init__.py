"""PyTorch checkpoints to Flax, without PyTorch and without ever executing a pickle."""
