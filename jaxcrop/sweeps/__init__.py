"""Studies of many runs: which cells there are, who computes them, and what came out."""
