"""What every TFDS builder of crop chips shares: GeoTIFF chips and label maps in, records out.

A builder of ours is a folder `jaxcrop_datasets/<name>/` with a `<name>_dataset_builder.py` whose
`Builder` subclasses `CropChips`. Building and reading need neither TensorFlow nor Beam.
"""

import dataclasses
import inspect
import io
import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from shutil import rmtree
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxcrop.crops import OTHER
from jaxcrop.data.bands import PUBLISHED_BANDS, SENTINEL2_BANDS
from jaxcrop.errors import InputError
from jaxcrop_datasets.building import (
    SHARD_CHIPS,
    LinkingWriter,
    PartialBuild,
    ShardChips,
    Tally,
    fingerprint,
    refusal,
    work_ahead,
    write_report,
)
from jaxcrop_datasets.chips import ChipReader, Problem, find_chips, split_chips
from jaxcrop_datasets.codes import Codes, from_mapping, of_classes, read_codes
from jaxcrop_datasets.labels import open_labels

PUBLISHED = "sentinel2_subsample_1000"
"""The folder that tells the layout of the Hugging Face repository (datasets_spec section 6)."""

REPORT = "left_out.csv"
"""Beside the records: the files that were left out, and why."""


@dataclasses.dataclass
class Variant(tfds.core.BuilderConfig):
    """How the records are made from the files.

    `harmonisation` is the column of codes.csv that gives each raw code its class; `radiometry`
    says whether the offset of processing baseline 04.00 is removed from digital numbers (raw: it
    is not); `product` is that of the chips: L2A has no B10.
    """

    harmonisation: str = "standard"
    radiometry: Literal["harmonised", "raw"] = "harmonised"
    product: Literal["L1C", "L2A"] = "L1C"


def variants(*harmonisations: str) -> list[Variant]:
    """The variants of a dataset: `standard` first, `paper-raw` is the study of arXiv:2409.09451."""
    products, radiometries = (("L1C", ""), ("L2A", "-l2a")), (("harmonised", ""), ("raw", "-raw"))
    return [
        Variant(
            name=harmonisation + of_radiometry + of_product,
            harmonisation=harmonisation,
            radiometry=radiometry,
            product=product,
        )
        for harmonisation in harmonisations
        for product, of_product in products
        for radiometry, of_radiometry in radiometries
    ]


class _Source(NamedTuple):
    """Where chips and label maps lie, what codes the maps hold and whether those are the raw."""

    chips: Path
    labels: Path
    codes: Codes
    harmonised: bool


class CropChips(tfds.core.ShardBasedBuilder, skip_registration=True):
    """TFDS builder of `<source>/chips/*.tif` labelled by `<source>/labels/*`.

    A chip of several dates is a folder of its files, `<source>/chips/<chip id>/*.tif`. Label maps
    are rasters or polygons in any number, projection and resolution: each chip takes the labels
    that lie over it. The layout of the published chips is taken too.

    A subclass states `YEAR` of the labels and `DAY` (MM-DD) of chips that give no date; `SEASON`,
    when the main crops stand in the field; `PUBLISHED_CHIPS` and `PUBLISHED_LABELS`, folders of
    the published layout; `CODE_FIELD`, the polygons' attribute that holds the raw code;
    `BUILDER_CONFIGS`, its variants; `HOMEPAGE`, `LICENSE`, `VERSION`, `RELEASE_NOTES`. The raw
    codes are in `codes.csv` beside it, or in `CODES`; TFDS takes description, citation and tags
    from files beside it. Other chips than Sentinel-2's of 256 pixels state `BANDS`, in the order
    of the records, `FILE_BANDS`, in that of files without descriptions, and `SIZE`.
    """

    BANDS: tuple[str, ...] = SENTINEL2_BANDS
    FILE_BANDS: tuple[str, ...] = PUBLISHED_BANDS
    SIZE: int = 256
    YEAR: int
    DAY: str
    SEASON: tuple[str, str] | None = None
    CODES: Mapping[int, tuple[str, int]] | None = None
    CODE_FIELD: str | None = None
    PUBLISHED_CHIPS: str | None = None
    PUBLISHED_LABELS: str | None = None
    HOMEPAGE: str
    LICENSE: str
    BUILDER_CONFIGS: ClassVar = variants("standard", "paper")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the chips in chips/*.tif and the label maps in labels/, or give the published layout; "
        "the README of this builder says where they come from."
    )

    on_error: Literal["stop", "skip"] = "stop"
    """Whether a build stops at files that cannot be read, or leaves them out and says so."""

    workers: int = os.cpu_count() or 1
    """Processes that a build of many chips uses, unless Beam runs it."""

    @classmethod
    def code_table(cls, harmonisation: str) -> Codes:
        """The raw codes and the classes that `harmonisation` gives them."""
        if cls.CODES is not None:
            return from_mapping(cls.CODES)
        return read_codes(Path(inspect.getfile(cls)).with_name("codes.csv"), harmonisation)

    def _bands(self, bands: tuple[str, ...]) -> tuple[str, ...]:
        has_cirrus = self.builder_config.product == "L1C"
        return bands if has_cirrus else tuple(band for band in bands if band != "B10")

    def _info(self) -> tfds.core.DatasetInfo:
        variant = self.builder_config
        bands, codes = self._bands(self.BANDS), self.code_table(variant.harmonisation)
        pixels = (self.SIZE, self.SIZE)
        tensor, raw_bytes = tfds.features.Tensor, tfds.features.Encoding.BYTES
        texts = tfds.features.Sequence(tfds.features.Text())
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "chip_id": tfds.features.Text(),
                    "image": tensor(
                        shape=(None, *pixels, len(bands)), dtype=np.uint16, encoding=raw_bytes
                    ),
                    "label": tensor(shape=pixels, dtype=np.uint8, encoding=raw_bytes),
                    "code": tensor(
                        shape=pixels,
                        dtype=codes.stored_dtype,
                        # Eight bytes a pixel of a few codes are worth compressing.
                        encoding=raw_bytes
                        if codes.stored_dtype == np.uint8
                        else tfds.features.Encoding.ZLIB,
                    ),
                    "dates": texts,
                    "crs": tfds.features.Text(),
                    "transform": tensor(shape=(6,), dtype=np.float64, encoding=raw_bytes),
                    "offset": tensor(shape=(None,), dtype=np.int32, encoding=raw_bytes),
                    "offset_source": texts,
                    "cloudy": tensor(shape=(None,), dtype=np.float32, encoding=raw_bytes),
                    "nodata": tensor(shape=(None,), dtype=np.float32, encoding=raw_bytes),
                }
            ),
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            metadata=tfds.core.MetadataDict(
                bands=list(bands),
                codes=codes.metadata(),
                outside=codes.outside,
                harmonisation=variant.harmonisation,
                radiometry=variant.radiometry,
                product=variant.product,
                year=self.YEAR,
                season=list(self.SEASON or ()),
            ),
        )

    def _source(self, folder: Path) -> _Source:
        codes = self.code_table(self.builder_config.harmonisation)
        if self.PUBLISHED_CHIPS is None or not (folder / PUBLISHED).is_dir():
            return _Source(folder / "chips", folder / "labels", codes, harmonised=False)
        if not np.array_equal(self.code_table("paper").classes, codes.classes):
            raise InputError(
                f"the label maps in {folder} are harmonised by the paper's rules, from which the "
                "raw codes cannot be had back: build the variant paper or paper-raw, or give the "
                "provider's label maps"
            )
        classes = of_classes()._replace(dtype=codes.dtype, outside=codes.outside)
        return _Source(
            folder / PUBLISHED / self.PUBLISHED_CHIPS,
            folder / self.PUBLISHED_LABELS,
            classes,
            harmonised=True,
        )

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        if download_config and download_config.beam_options and not download_config.beam_runner:
            # TFDS makes shards with Beam only where a runner is named: take that of the options.
            from apache_beam.options.pipeline_options import StandardOptions  # noqa: PLC0415

            runner = download_config.beam_options.view_as(StandardOptions).runner
            download_config = dataclasses.replace(
                download_config, beam_runner=runner or "DirectRunner"
            )
        source = self._source(Path(dl_manager.manual_dir))
        chips, problems = find_chips(source.chips)
        labels = open_labels(source.labels, source.codes, self.CODE_FIELD)
        self._reader = ChipReader(
            bands=self._bands(self.BANDS),
            file_bands=self._bands(self.FILE_BANDS),
            size=self.SIZE,
            year=self.YEAR,
            day=self.DAY,
            codes=source.codes,
            labels=labels,
            keep_offset=self.builder_config.radiometry == "raw",
        )
        by_id = {chip.chip_id: chip for chip in chips}
        self._splits = {
            name: [by_id[chip_id] for chip_id in ids]
            for name, ids in split_chips(list(by_id)).items()
        }
        folder = Path(self.data_dir).parent
        self._partial = PartialBuild(folder / f".{self.version}.partial")
        files = sorted(path for path in source.labels.rglob("*") if path.is_file())
        settings = (self.info.full_name, self.info.file_format.value, str(self._reader.bands))
        paths = itertools.chain(files, *(chip.paths for chip in chips))
        with self._partial.held(fingerprint(settings, paths)) as lock:
            for left in folder.glob(f"incomplete.*_{self.version}"):  # of a killed process
                if left != Path(self.data_dir):
                    rmtree(left)
            workers = min(self.workers, len(chips) // (2 * SHARD_CHIPS))
            if workers > 1 and not (download_config and download_config.beam_runner):
                shards = list(
                    itertools.chain(*self._shard_iterators_per_split(dl_manager).values())
                )
                work_ahead(shards, self.info.features, self.info.file_format, lock, workers)
            try:
                super()._download_and_prepare(dl_manager, download_config)
                tallies = {name: self._tallies(name) for name in self._splits}
                problems += [
                    problem
                    for tally in itertools.chain(*tallies.values())
                    for problem in tally.problems
                ]
                self._conclude(source, tallies, problems)
            except InputError:
                self._partial.remove()
                raise
            self._partial.remove()

    def _conclude(
        self, source: _Source, tallies: Mapping[str, list[Tally]], problems: list[Problem]
    ) -> None:
        """Refuse bad files or report them, and complete the metadata."""
        if problems and self.on_error == "stop":
            raise refusal(problems)
        for name, of_split in tallies.items():
            if not any(tally.chips for tally in of_split):
                raise InputError(
                    f"no chip of the split {name} can be built: mend the files, the first is "
                    f"{problems[0][0]}: {problems[0][1]}"
                )
        for left in Path(self.data_dir).glob("*.shard_infos.json"):  # Beam's workers told TFDS
            left.unlink()
        if problems:
            write_report(Path(self.data_dir) / REPORT, problems)
        metadata = self.info.metadata
        metadata["synthetic"] = any(tally.synthetic for tally in itertools.chain(*tallies.values()))
        metadata["left_out"] = len(problems)
        metadata["labels"] = "harmonised" if source.harmonised else "raw"
        metadata["codes"] = source.codes.metadata()
        metadata["pixels"] = {
            name: np.sum([tally.pixels for tally in of_split], axis=0).tolist()
            for name, of_split in tallies.items()
        }
        seen = set().union(*(tally.codes for tally in itertools.chain(*tallies.values())))
        # Every harmonised map has OTHER, and nothing above it.
        if not source.harmonised and max(source.codes.codes) > OTHER == max(seen, default=0):
            warnings.warn(
                f"the label maps in {source.labels} hold no code above 5: if they are harmonised "
                "already, their classes were now read as raw codes",
                stacklevel=2,
            )

    def _shard_names(self, split: str) -> list[str]:
        template = self._get_filename_template(split_name=split)
        shards = -(-len(self._splits[split]) // SHARD_CHIPS)
        return [
            Path(template.sharded_filepath(shard_index=shard, num_shards=shards)).name
            for shard in range(shards)
        ]

    def _tallies(self, split: str) -> list[Tally]:
        return [self._partial.tally(shard) for shard in self._shard_names(split)]

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, list[ShardChips]]:
        del dl_manager
        return {
            name: [
                ShardChips(
                    shard,
                    tuple(chips[number * SHARD_CHIPS : (number + 1) * SHARD_CHIPS]),
                    self._reader,
                    self._partial,
                )
                for number, shard in enumerate(self._shard_names(name))
            ]
            for name, chips in self._splits.items()
        }

    def _example_writer(self) -> LinkingWriter:
        return LinkingWriter(self.info.file_format, self._partial)


def build_records(
    builder_class: type[CropChips],
    source: Path,
    data_dir: Path,
    *,
    variant: str = "standard",
    on_error: Literal["stop", "skip"] = "stop",
    beam_options: str | None = None,
) -> tfds.core.DatasetBuilder:
    """Build a dataset from the folder `source` into `data_dir`.

    `beam_options` are those of an Apache Beam pipeline, as on its command line, whose workers
    then build the shards. A build that was killed goes on where it was; one that fails leaves
    nothing. Raises InputError for bad input (with `on_error="skip"` bad files are left out and
    listed in REPORT), for a dataset that is built already and a folder that cannot be written.
    """
    if not source.is_dir():
        raise InputError(f"{source} is no folder: give the one that holds chips/ and labels/")
    names = [config.name for config in builder_class.BUILDER_CONFIGS]
    if variant not in names:
        raise InputError(f"no variant is called {variant}: choose one of {', '.join(names)}")
    tfds.disable_progress_bar()
    builder = builder_class(data_dir=data_dir, config=variant)
    builder.on_error = on_error
    if builder.data_path.exists():
        raise InputError(
            f"{builder.data_path} is built already: remove it, or choose another folder"
        )
    config = tfds.download.DownloadConfig(
        manual_dir=source.resolve(), beam_options=_pipeline_options(beam_options)
    )
    # TFDS prints that it downloads, and makes a download folder, though this never does.
    with (
        _removed_if_refused(Path(builder.data_path).parent),
        tempfile.TemporaryDirectory() as downloads,
        redirect_stdout(io.StringIO()),
    ):
        try:
            builder.download_and_prepare(
                file_format="array_record", download_dir=downloads, download_config=config
            )
        except OSError as error:
            raise InputError(
                f"cannot write to {data_dir} ({error}): choose another folder"
            ) from error
    return builder


def _pipeline_options(text: str | None):
    if text is None:
        return None
    try:
        from apache_beam.options.pipeline_options import PipelineOptions  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            "Apache Beam is not installed: pip install 'jaxcrop[beam]', or leave out the options"
        ) from error
    return PipelineOptions(text.split())


@contextmanager
def _removed_if_refused(folder: Path) -> Iterator[None]:
    """Should the body raise InputError, remove `folder` and those above it that it left empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except InputError:
        for path in new:
            with suppress(OSError):
                if [left.name for left in path.iterdir()] == [".config"]:  # TFDS's note of variants
                    rmtree(path / ".config")
                path.rmdir()
        raise
