"""A trained model in Python: `jaxcrop.load_run(path).predict(image)`."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data.bands import BandInput
from jaxcrop.mapping.blend import most_probable
from jaxcrop.mapping.images import as_images, image_strips
from jaxcrop.mapping.planes import LogitsFn
from jaxcrop.mapping.scene import Summary, map_scene
from jaxcrop.models.segmenter import Segmenter
from jaxcrop.training.checkpoints import Which
from jaxcrop.training.runs import Run, open_run
from jaxcrop.training.scores import score_run


def load_run(path: str | Path, checkpoint: Which = "best") -> "TrainedModel":
    """The model that a run has trained: of the lowest validation loss, or that of the last step.

    Raises InputError where `path` is no run folder; where it holds no checkpoint, the first use
    does.
    """
    return TrainedModel(open_run(Path(path)), checkpoint)


class TrainedModel:
    """The model of a run folder, to predict with; `load_run` makes one.

    `run` holds its settings and what it was trained on.
    """

    def __init__(self, run: Run, checkpoint: Which = "best"):
        self.run = run
        self.checkpoint: Which = checkpoint

    def __repr__(self) -> str:
        return f"<{self.title}, {self.checkpoint} checkpoint>"

    @property
    def title(self) -> str:
        """One line that says what was trained on what."""
        return self.run.title

    @property
    def band_input(self) -> BandInput:
        """The bands that the model sees, in order, and how they are scaled."""
        return self.run.band_input

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes of `jaxcrop.crops` that can be predicted."""
        return self.run.predicted

    @cached_property
    def model(self) -> Segmenter:
        """The network itself, in evaluation mode: normalised images to logits of all classes."""
        return self.run.model(self.checkpoint)

    @cached_property
    def _logits_fn(self) -> LogitsFn:
        return self.run.logits_fn(self.checkpoint)

    def predict(
        self,
        image: Integer[np.ndarray, "*n h w band"],
        *,
        bands: Sequence[str] | None = None,
        offset: int = 0,
        overlap: int = 64,
        batch_size: int = 4,
    ) -> UInt8[np.ndarray, "*n h w"]:
        """The class of every pixel, as `python -m jaxcrop.predict` maps it.

        `image` holds digital numbers (reflectance x 10,000), one image of any size or several of
        one size. `bands` names its bands in their order, which is that of `band_input` otherwise;
        `offset` is subtracted first (1000 for processing baseline 04.00 and later). Windows of 256
        pixels that share `overlap` pixels are seen, `batch_size` at a time, and blended. The class
        is 0 where all bands are 0. Raises InputError for an image that is none, or lacks a band.
        """
        images = as_images(image)
        classes = np.zeros(images.shape[:-1], np.uint8)
        for number, top, strip in self._strips(images, bands, offset, overlap, batch_size):
            classes[number, top : top + strip.shape[1]] = most_probable(strip)[0]
        return classes.reshape(np.shape(image)[:-1])

    def predict_proba(
        self,
        image: Integer[np.ndarray, "*n h w band"],
        *,
        bands: Sequence[str] | None = None,
        offset: int = 0,
        overlap: int = 64,
        batch_size: int = 4,
    ) -> Float32[np.ndarray, "*n h w classes"]:
        """The probability of every class at every pixel.

        They add up to 1, and the greatest is that of the class that `predict` gives, whose
        arguments these are; class 0 has it where there is no data. Raises InputError as it does.
        """
        images = as_images(image)
        values = np.zeros((*images.shape[:-1], NUM_CLASSES), np.float32)
        for number, top, strip in self._strips(images, bands, offset, overlap, batch_size):
            rows = values[number, top : top + strip.shape[1]]
            rows[..., 1:] = np.moveaxis(strip, 0, -1)
            rows[..., 0] = strip.max(axis=0) == 0
        return values.reshape(*np.shape(image)[:-1], NUM_CLASSES)

    def _strips(
        self,
        images: np.ndarray,
        bands: Sequence[str] | None,
        offset: int,
        overlap: int,
        batch_size: int,
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        return image_strips(
            self._logits_fn,
            self.band_input,
            images,
            bands=bands,
            offset=offset,
            overlap=overlap,
            batch_size=batch_size,
        )

    def map_scene(
        self,
        scene: str | Path,
        out: str | Path,
        *,
        confidence: str | Path | None = None,
        bands: Sequence[str] | None = None,
        offset: int = 0,
        overlap: int = 64,
        batch_size: int = 4,
        progress: Callable[[int, int], None] | None = None,
    ) -> Summary:
        """Write the crop map of the raster `scene` to `out`, a cloud-optimised GeoTIFF on its grid.

        `confidence` names a second file, for the probability of the mapped crop in per cent;
        `bands` the scene's bands in order, where the file does not describe them. The others are
        `predict`'s; `progress` is called with the windows done and their total. Returns pixels and
        hectares of each class. Raises InputError for a bad scene, path or setting.
        """
        return map_scene(
            self._logits_fn,
            self.band_input,
            Path(scene),
            Path(out),
            confidence=None if confidence is None else Path(confidence),
            bands=bands,
            offset=offset,
            overlap=overlap,
            batch_size=batch_size,
            note=f"crop map, {self.title}",
            progress=progress,
        )

    def evaluate(self, split: str = "test", *, batch_size: int = 8) -> dict[str, dict[str, float]]:
        """Score the model on the chips of `split` (train, validation, test) of its region.

        Prints what `python -m jaxcrop.evaluate` prints and writes RUN/evaluation/SPLIT. Returns
        the metrics of the model and of two baselines by name. Raises InputError where the records
        are gone or the folder cannot be written.
        """
        return score_run(self.run, split, self.checkpoint, batch_size)
