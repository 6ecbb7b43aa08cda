"""The chips of a run as maps of its frozen backbone, computed once, in place of images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from jaxcrop.compiling import on_cpu
from jaxcrop.config import TrainConfig
from jaxcrop.data.augment import Augmentation
from jaxcrop.data.experiment import ChipRef, Experiment
from jaxcrop.data.reading import Batch
from jaxcrop.data.sampling import Sampling
from jaxcrop.errors import InputError
from jaxcrop.features.backbones import FrozenBackbone
from jaxcrop.features.bank import ArraysInTurn, FeatureBank
from jaxcrop.features.maps import chip_sets
from jaxcrop.features.store import FeatureStore
from jaxcrop.mesh import put_batch


def keeps_maps(config: TrainConfig) -> bool:
    """Whether a run computes its maps once: as `--keep-maps` says, or where a CPU would gain.

    An accelerator computes them again sooner than the host can send them. Raises InputError where
    several processes are to keep them.
    """
    wanted, alone = config.device.keep_maps, jax.process_count() == 1
    if wanted == "auto":
        return alone and on_cpu() and not config.lacking_to_keep_maps
    if wanted == "on" and not alone:
        raise InputError("--keep-maps on needs a single process: leave it out")
    return wanted == "on"


class MapFeed:
    """Batches of maps, as `jaxcrop.training.feed.ImageFeed` gives batches of images.

    Each chip is computed once in each view, beginning now, and kept in `folder`. Batches are read
    into two sets of arrays in turn: one is done with when the next but one is asked for. The
    batches of `order` in the steps `plain` set the statistics. Raises InputError where the folder
    cannot be written.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        experiment: Experiment,
        config: TrainConfig,
        *,
        order: Sampling,
        plain: range,
        folder: Path,
        mesh: Mesh,
        say: Callable[[str], None],
    ):
        optimizer = config.optimizer
        self._augmentation = Augmentation(optimizer.augmentation, optimizer.views)
        self._key = jax.random.key(optimizer.seed)
        self._order, self._plain, self._mesh = order, plain, mesh
        self._train, self._validated = experiment.refs("train"), experiment.refs("validation")
        store = self._store = FeatureStore(folder)

        def bank(refs: Iterable[ChipRef], views: Iterable[int]) -> FeatureBank:
            chips = chip_sets(experiment, refs)
            kept = FeatureBank(backbone, chips, store, dtype=config.device.compute_dtype, say=say)
            kept.compute(views)
            return kept

        if self._augmentation.how == "views":
            training = (self._train[k] for step in plain for k in order.batch(step))
            self._unchanged = bank([*self._validated, *training], [0])
            self._viewed = bank(self._train, range(1, optimizer.views + 1))
        else:
            self._unchanged = self._viewed = bank([*self._train, *self._validated], [0])
        self._arrays = ArraysInTurn()

    @property
    def size(self) -> int:
        """Bytes that the maps take."""
        return self._store.size

    def training(self, sampling: Sampling, steps: range) -> Iterator[Batch]:
        """The training batches of `steps`, each chip in the view that the step draws."""
        views = self._augmentation.views_by_step(self._key, sampling, steps)
        for step in steps:
            rows = sampling.batch(step)
            refs = [self._train[k] for k in rows]
            yield self._batch(self._viewed, refs, len(rows), views.get(step))

    def statistics(self) -> Iterator[Batch]:
        """The batches that set the statistics, each chip as it is."""
        for step in self._plain:
            rows = self._order.batch(step)
            yield self._batch(self._unchanged, [self._train[k] for k in rows], len(rows))

    def validation(self, size: int) -> Iterator[tuple[tuple[str, ...], Batch]]:
        """The validation chips in order, with their ids."""
        for start in range(0, len(self._validated), size):
            refs = self._validated[start : start + size]
            yield (
                tuple(chip_id for _, chip_id in refs),
                self._batch(self._unchanged, refs, size),
            )

    def _batch(
        self,
        bank: FeatureBank,
        refs: Sequence[ChipRef],
        size: int,
        views: Int[np.ndarray, " n"] | None = None,
    ) -> Batch:
        maps, label = self._arrays.of(bank, size)
        bank.fill((maps, label), refs, views)
        return put_batch(Batch(maps, label, np.zeros(size, np.uint32)), self._mesh, size)
