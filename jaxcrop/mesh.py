"""The devices as a mesh: batches split over it, parameters copied to each or spread."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, pairwise
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcrop.config import DeviceConfig
from jaxcrop.data.reading import Batch
from jaxcrop.errors import InputError
from jaxcrop.weights.download import cache_dir

T = TypeVar("T")

_SMALLEST_SPREAD = 2**14
"""Arrays of fewer elements are copied to every device: fetching them would take longer."""


def prepare_devices(config: DeviceConfig) -> None:
    """Join the other processes, where `config` names any, and keep compiled programs on disk.

    It must come before anything asks JAX for its devices. Raises InputError where the others
    cannot be found.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    by_hand = config.coordinator is not None
    if (config.distributed or by_hand) and not jax.distributed.is_initialized():
        try:
            jax.distributed.initialize(config.coordinator, config.num_processes, config.process_id)
        except (ValueError, TypeError, RuntimeError) as error:
            raise InputError(
                f"--{'coordinator' if by_hand else 'distributed'}: the other processes cannot be "
                f"joined ({error}): start all through srun, mpirun or a TPU pod's launcher, or "
                "give --coordinator HOST:PORT --num-processes N --process-id I to each"
            ) from error


def is_first_process() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


@contextmanager
def together() -> Iterator[None]:
    """A block that all processes come through, or none: where one cannot, the others stop as well.

    Raises InputError where another process could not.
    """
    if jax.process_count() == 1:
        yield
        return
    failed = True
    try:
        yield
        failed = False
    finally:
        failures = multihost_utils.process_allgather(np.array(failed))
    if failures.any():
        raise InputError("another of the processes had to stop: its own output says why")


@contextmanager
def ending_for_all() -> Iterator[None]:
    """A block in which the error of one process ends all: it is printed and the process exits.

    The others wait for it in a computation, and nothing but its end tells them. An exit, as after
    a SIGTERM, is one that all agreed on.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        refused = isinstance(error, InputError)
        print(f"error: {error}" if refused else traceback.format_exc(), file=sys.stderr, flush=True)
        sys.stdout.flush()
        # Not sys.exit: JAX would have it wait for the others, for five minutes.
        os._exit(2 if refused else 1)


def from_first_process(number: int) -> int:
    """The number that the first process has."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def data_mesh() -> Mesh:
    """All devices of all processes along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_over(mesh: Mesh, chips: int) -> NamedSharding:
    """How a batch of so many chips lies: split evenly, or whole on each if it does not divide."""
    even = chips % mesh.size == 0
    return NamedSharding(mesh, PartitionSpec("data") if even else PartitionSpec())


def placement(tree: Any, mesh: Mesh, *, spread: bool) -> Any:
    """How a tree of arrays lies on the devices, as a tree of shardings.

    Each array is copied to every device; or, if `spread`, divided along its longest axis that the
    number of devices divides (fully sharded data parallelism: XLA gathers a layer's parameters
    where it is computed, and scatters its gradient).
    """

    def of_array(array) -> NamedSharding:
        if spread and np.prod(array.shape) >= _SMALLEST_SPREAD:
            for axis in sorted(range(array.ndim), key=lambda axis: -array.shape[axis]):
                if array.shape[axis] % mesh.size == 0:
                    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
        return replicated(mesh)

    return jax.tree.map(of_array, tree)


def fitting_batch_size(wanted: int, chips: int, mesh: Mesh) -> int:
    """The batch size to use: `wanted`, or less where there are fewer chips than that.

    Raises InputError where it does not divide over the devices.
    """
    size = wanted if chips >= wanted else max(mesh.size, chips - chips % mesh.size)
    if size % mesh.size:
        raise InputError(
            f"--batch-size {wanted} does not divide over {mesh.size} devices: "
            f"choose a multiple of {mesh.size}"
        )
    return size


def evaluation_batch_size(wanted: int, chips: int, mesh: Mesh) -> int:
    """The batch size, up to about `wanted`, by which so many chips take the least time.

    A multiple of the devices: a batch is taken to cost what its chips do, those that fill up the
    last one among them, and one chip of each device more.
    """
    sizes = range(mesh.size, wanted + mesh.size, mesh.size)
    return min(sizes, key=lambda size: (-(-chips // size) * (size + mesh.size), -size))


def one_behind(begun: Iterable[T]) -> Iterator[T]:
    """Each thing that the devices have begun to compute, when the next has been begun as well.

    Whoever waits for one does not keep the devices waiting.
    """
    return (one for one, _ in pairwise(chain(begun, [None])))


def local_rows(mesh: Mesh) -> Callable[[int], slice]:
    """Says, of a batch of so many chips, which ones this process puts on its devices.

    It can be sent to the processes that read, which must not touch a device.
    """
    return partial(_rows, mesh.size, jax.process_count(), jax.process_index())


def _rows(devices: int, processes: int, process: int, chips: int) -> slice:
    if chips % devices:
        return slice(None)
    size = chips // processes
    return slice(size * process, size * (process + 1))


def put_batch(batch: Batch, mesh: Mesh, chips: int) -> Batch:
    """Put this process's rows of a batch of `chips` chips on its devices."""
    sharding = split_over(mesh, chips)

    def put(part: np.ndarray) -> jax.Array:
        shape = (chips, *part.shape[1:])
        return jax.make_array_from_process_local_data(sharding, np.asarray(part), shape)

    return jax.tree.map(put, batch)


def put_everywhere(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process has alike, copied to all devices."""
    where = replicated(mesh)
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(where, np.asarray(array)), tree
    )
