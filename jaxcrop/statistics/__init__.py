"""Statistics of scores: intervals, tests, learning curves and ranks, in NumPy and SciPy alone."""
