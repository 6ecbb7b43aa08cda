"""What happens around compiling."""

import ctypes
from types import SimpleNamespace

import jax
import jax.numpy as jnp

from jaxcrop import compiling


def test_memory_goes_back_to_the_kernel_after_long_compilations(monkeypatch):
    """And JAX tells of compilations by the name that is listened to."""
    told, trimmed = [], []
    library = SimpleNamespace(malloc_trim=trimmed.append)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    compiling._give_back_what_compiling_took.cache_clear()
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: told.append(event))
    double = compiling.compiled(lambda x: x * 2 + 12.25)
    assert double(jnp.ones(3)).tolist() == [14.25] * 3
    assert compiling._COMPILED in told
    trimmed.clear()
    jax.monitoring.record_event_duration_secs(compiling._COMPILED, 0.1)
    assert trimmed == []
    jax.monitoring.record_event_duration_secs(compiling._COMPILED, 3.0)
    assert trimmed == [0]
