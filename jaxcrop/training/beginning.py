"""The weights that a model begins with: random, published, converted, or another run's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jaxcrop.config import Family, ModelConfig
from jaxcrop.crops import NUM_CLASSES
from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.models.segmenter import Segmenter, random_segmenter
from jaxcrop.training.runs import Run, open_run
from jaxcrop.weights import (
    CATALOGUE,
    band_input,
    default_weights,
    find,
    load_weights,
    read_manifest,
)
from jaxcrop.weights.converted import state_variables


class Beginning:
    """What `chosen` begins with: the manifest of its backbone's weights, and what it is fed.

    `missing` names, with its remedy, what is not on this machine: nothing else holds then. Raises
    InputError where the weights are of another kind than `chosen` says.
    """

    backbone: dict
    band_input: BandInput

    def __init__(self, chosen: ModelConfig):
        self._chosen = chosen
        self._run: Run | None = None
        self._folder: Path | None = None
        self.missing: list[str] = []
        name = chosen.weights
        if name == "published":
            name = default_weights(chosen.backbone, chosen.architecture).name
        if name == "random":
            self.backbone = {"family": chosen.backbone, "source": "random"}
            self.band_input = band_input(chosen.backbone, chosen.bands)
        elif name in CATALOGUE:
            entry = CATALOGUE[name]
            self._check(name, backbone=entry.family, architecture=entry.architecture)
            self._folder = find(name)
            if self._folder is None:
                self.missing = [
                    f"the published weights {name} (`python -m weights_convert fetch {name}` gets "
                    "them, or --weights random does without)"
                ]
        elif (Path(name) / "config.yaml").is_file():
            self._take_run(Path(name))
        else:
            self._folder = Path(name)
        if self._folder is not None:
            manifest, self.band_input = read_manifest(self._folder)
            self._check(
                str(self._folder),
                backbone=manifest["family"],
                architecture=manifest["architecture"],
            )
            self.backbone = {key: value for key, value in manifest.items() if key != "dropped"}

    def _take_run(self, folder: Path) -> None:
        self._run = open_run(folder)
        model = self._run.config.model
        self._check(
            str(folder),
            backbone=model.backbone,
            architecture=model.architecture,
            decoder=model.decoder,
        )
        self.band_input = self._run.band_input
        chips = self._run.data["chips"]
        self.backbone = {**self._run.backbone, "trained_on": {"chips": chips}}

    def _check(self, weights: str, **found: str) -> None:
        """Raise InputError where `weights` are of another kind than the arguments say."""
        for name, value in found.items():
            if value != getattr(self._chosen, name):
                raise InputError(
                    f"{weights} holds weights of {value}, not {getattr(self._chosen, name)}: give "
                    f"--{name} {value}, or other --weights"
                )

    def fill(self, model: Segmenter) -> None:
        """Put the weights into `model`, which has random ones.

        Of a run, a last layer for another number of classes is left as it is.
        """
        if self._run is not None:
            _, values = self._run.values()
            for name, variable in state_variables(model).items():
                if variable.shape == values[name].shape:
                    variable.set_value(values[name])
        elif self._folder is not None:
            upsample = self._chosen.upsample == "published"
            load_weights(model, self._folder, upsample=upsample)


def create(
    backbone: Family,
    architecture: str = "resnet50",
    *,
    decoder: str = "unet",
    classes: int = NUM_CLASSES,
    weights: str | Path = "published",
    upsample: Literal["published", "random"] = "published",
    bands: Sequence[str] | None = None,
    seed: int = 0,
) -> Segmenter:
    """A segmentation model with pretrained weights, in training mode as Flax makes modules.

    The arguments are those of `python -m jaxcrop.train`; nothing is downloaded. `weights` is
    "published" (what the family stands for), the name of a published set, "random", or a folder:
    converted weights, or a run. What these do not fill is drawn by `seed`: the decoder, but for
    SatlasPretrain's upsampling layers under an FPN (`upsample`), and but for a run's.

    The model maps normalised images (n, h, w, band) in float32 to logits (n, h, w, classes);
    `model.band_input` says which bands it sees, and `jaxcrop.data.normalise` makes such images of
    digital numbers. `bands` chooses bands, with random weights only.

    Raises InputError for an unknown name, for weights of another kind, and for published weights
    that the cache lacks.
    """
    chosen = ModelConfig(
        backbone,
        architecture,
        decoder,
        str(weights),
        upsample,
        None if bands is None else tuple(bands),
    )
    if classes < 1:
        raise InputError(f"classes must be at least 1, not {classes}")
    beginning = Beginning(chosen)
    if beginning.missing:
        raise InputError(f"missing: {' and '.join(beginning.missing)}")
    in_channels = len(beginning.band_input.bands)
    model = random_segmenter(architecture, decoder, in_channels, classes, seed=seed)
    beginning.fill(model)
    model.band_input = beginning.band_input
    return model
