"""From a scene of any size to a georeferenced crop map, in bounded memory and without JAX."""
