"""What happens around compiling."""

import jax
import jax.numpy as jnp

from jaxcrop import compiling


def test_memory_goes_back_to_the_kernel_after_long_compilations(monkeypatch):
    """And JAX tells of compilations by the name that is listened to."""
    told, returned = [], []
    monkeypatch.setattr(compiling, "return_freed_memory", lambda: returned.append(True))
    compiling._give_back_what_compiling_took()
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: told.append(event))
    double = compiling.compiled(lambda x: x * 2 + 12.25)
    assert double(jnp.ones(3)).tolist() == [14.25] * 3
    assert compiling._COMPILED in told
    returned.clear()
    jax.monitoring.record_event_duration_secs(compiling._COMPILED, 0.1)
    assert returned == []
    jax.monitoring.record_event_duration_secs(compiling._COMPILED, 3.0)
    assert returned == [True]
