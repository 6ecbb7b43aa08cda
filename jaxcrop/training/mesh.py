"""The devices as a mesh: batches split over it, parameters copied to each."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcrop.data.reading import Batch
from jaxcrop.errors import InputError


def data_mesh() -> Mesh:
    """All devices of all processes along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


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


def local_part(batch: Batch) -> Batch:
    """The chips of a batch that this process puts on its devices."""
    size = batch.image.shape[0] // jax.process_count()
    first = size * jax.process_index()
    return Batch(batch.image[first : first + size], batch.label[first : first + size])


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Put this process's part of a batch on its devices, the chips split evenly among them."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return Batch(
        *(jax.make_array_from_process_local_data(sharding, np.asarray(part)) for part in batch)
    )
