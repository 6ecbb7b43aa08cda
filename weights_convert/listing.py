"""What `python -m weights_convert list` prints: the catalogue, as a table or as JSON."""

import dataclasses
import itertools
import json
import textwrap
import urllib.parse
from collections.abc import Iterable, Sequence

from jaxcrop.data.bands import BandInput
from jaxcrop.errors import InputError
from jaxcrop.weights.catalogue import CATALOGUE, INPUTS, PublishedWeights
from jaxcrop.weights.download import state

_HEADINGS = (
    "name", "family", "backbone", "input", "size", "img", "licence", "source", "sha", "state",
)  # fmt: skip
_NUMBERS = {"size", "img"}
_NOTES = (
    "size: pixels per side of the images that the publisher feeds.",
    "img: images fed together, at most; the maximum of their feature maps goes on.",
    "source: hf is huggingface.co; satlas of hf/allenai holds the FPN and upsampling besides.",
    "sha: whether the publisher puts the file's SHA-256 into its name, to compare it with.",
    "state: absent, partial, downloaded or converted on this machine.",
)
_WIDTH = 100
_NO_BREAK = "\N{NO-BREAK SPACE}"


def select(family: str | None, architecture: str | None) -> list[PublishedWeights]:
    """The published sets of a family and architecture, either of which None leaves open.

    Raises InputError where there are none.
    """
    entries = [
        entry
        for entry in CATALOGUE.values()
        if family in (None, entry.family) and architecture in (None, entry.architecture)
    ]
    if not entries:
        wanted = " and ".join(filter(None, (family, architecture)))
        raise InputError(
            f"nothing is published of {wanted}: `python -m weights_convert list` without a filter "
            "prints all there is"
        )
    return entries


def listing(entries: Sequence[PublishedWeights]) -> str:
    """A table with a row for each set, and below it what their inputs are."""
    rows = [_HEADINGS, *map(_row, entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" ".join(map(_aligned, _HEADINGS, row, widths)).rstrip() for row in rows]
    inputs = dict.fromkeys(entry.input for entry in entries)
    legend = ["inputs: the bands in their order, and what their digital numbers become"]
    for name in inputs:
        legend += _wrapped(f"{name}: {_scaling(INPUTS[name])}")
    return "\n".join([*lines, "", *legend, "", *_NOTES])


def as_json(entries: Iterable[PublishedWeights]) -> str:
    """The same as a JSON list: the catalogue's columns, the input in full and the state."""
    return json.dumps(
        [
            dataclasses.asdict(entry)
            | {"in_channels": entry.in_channels, "state": state(entry.name)}
            | dataclasses.asdict(entry.band_input)
            for entry in entries
        ],
        indent=2,
    )


def _row(entry: PublishedWeights) -> tuple[str, ...]:
    return (
        entry.name,
        entry.family,
        entry.architecture,
        entry.input,
        str(entry.input_size),
        str(entry.images),
        entry.licence,
        _source(entry.url),
        "yes" if entry.sha256 else "no",
        state(entry.name),
    )


def _aligned(heading: str, text: str, width: int) -> str:
    return text.rjust(width) if heading in _NUMBERS else text.ljust(width)


def _source(url: str) -> str:
    """The host, and on Hugging Face the organisation."""
    parts = urllib.parse.urlsplit(url)
    if parts.hostname in ("hf.co", "huggingface.co"):
        return f"hf/{parts.path.split('/')[1]}"
    return parts.hostname.removeprefix("download.")


def _scaling(band_input: BandInput) -> str:
    """All bands in order, those that follow each other at the same scale together."""
    scales = zip(band_input.offset, band_input.divisor, strict=True)
    bands = zip(band_input.bands, scales, strict=True)
    groups = []
    for (offset, divisor), group in itertools.groupby(bands, key=lambda pair: pair[1]):
        names = " ".join(name for name, _ in group)
        shifted = f"({names} - {offset:g})" if offset else names
        groups.append(f"{shifted} / {divisor:g}")
    return ", ".join(groups) + (", clipped to [0, 1]" if band_input.clip else "")


def _wrapped(text: str) -> list[str]:
    """Indented lines, none of which begins with an operator."""
    for operator in (" - ", " / "):
        text = text.replace(operator, operator.replace(" ", _NO_BREAK))
    lines = textwrap.wrap(
        text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]
