"""How programs are compiled: `jax.jit` with the options that suit the backend."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

from jaxcrop.allocator import return_freed_memory

_CPU = {
    # YNNPACK for products alone: a Swin's step takes a tenth less time than by Eigen. Its
    # convolutions reach half the speed of Eigen's, and a quarter in weight gradients.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    # The pass that takes optimisation barriers away before anything is fused: without it they hold.
    "xla_disable_hlo_passes": "cse_barrier_expander",
    "xla_cpu_prefer_vector_width": 512,
}

_ORDER = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""In this order a U-Net's step needs a tenth less memory than in XLA's default, but activations
would be computed again long before they are needed."""

_COMPILED = "/jax/core/compile/backend_compile_duration"
"""What JAX calls the end of a compilation."""


def on_cpu() -> bool:
    """Whether programs run on a CPU: on JAX's default backend, for which they are traced."""
    return jax.default_backend() == "cpu"


def compiled(function: Callable, *, remat: bool = False, **arguments: Any) -> Callable:
    """`function` compiled as `jax.jit` would with these arguments, for the default backend.

    `remat` says that it computes activations again (`jaxcrop.models.remat`).
    """
    if on_cpu():
        _give_back_what_compiling_took()
        options = _CPU if remat else _CPU | _ORDER
        arguments["compiler_options"] = options | arguments.get("compiler_options", {})
    return jax.jit(function, **arguments)


@cache
def shared(function: Callable, *static: str) -> Callable:
    """The one program of a module's function, `compiled` when it is first asked for.

    A module that is imported does not ask for devices yet. `static` are the arguments of which
    there is a program for each value.
    """
    return compiled(function, static_argnames=static)


@cache
def _give_back_what_compiling_took() -> None:
    """Return freed memory to the kernel whenever a program has been compiled.

    The compiler frees hundreds of megabytes in small blocks, which glibc keeps and a step's large
    arrays cannot use.
    """

    def listen(event: str, seconds: float, **about: Any) -> None:
        if event == _COMPILED and seconds > 0.5:
            return_freed_memory()

    jax.monitoring.register_event_duration_secs_listener(listen)
