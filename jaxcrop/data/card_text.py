"""The words of a dataset card: Markdown made of its numbers."""

from collections.abc import Iterable, Iterator, Sequence

from jaxcrop.crops import CLASS_NAMES, IGNORE

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip

_CROPS = CLASS_NAMES[IGNORE + 1 :]

_FEW = 10
"""Test chips below which the score of a class is called uncertain."""


def markdown(card: dict) -> str:
    """The card as two pages of Markdown; `jaxcrop.data.card.describe` made the numbers."""
    drawn = " (synthetic data)" if card["synthetic"] else ""
    sections = [
        f"# {card['dataset']} {card['version']}, {card['variant']}{drawn}",
        _introduction(card),
        "## What this sample can and cannot say",
        "\n".join(f"- {sentence}" for sentence in findings(card)),
        "## Classes",
        _class_table(card),
        "![Share of each class in each split](class_balance.png)",
        "## Fields",
        "Areas of one raw code whose pixels share a side: neighbouring parcels of one crop count "
        "as one. Sizes are hectares on the ground, of the fields that no chip's edge cuts; specks "
        f"are areas below {card['speck_hectares']:g} ha.",
        _field_table(card),
        "![Area by size of field](field_sizes.png)",
        "## Places",
        "![Where the chips lie](locations.png)",
        "## Images",
        _image_table(card),
        "## Bands",
        "Digital numbers (reflectance x 10,000) of the pixels that have data"
        + (", offsets as in the files." if card["radiometry"] == "raw" else ", offsets removed."),
        _band_table(card),
        "![Range of each band](bands.png)",
    ]
    return "\n\n".join(sections) + "\n"


def findings(card: dict) -> list[str]:
    """Sentences that say how far the numbers of the card carry."""
    return [
        *_on_origin(card),
        *_on_size(card),
        *_on_classes(card),
        *_on_splits(card),
        *_on_labels(card),
        *_on_images(card),
    ]


def _on_origin(card: dict) -> Iterator[str]:
    if card["synthetic"]:
        yield (
            "**Synthetic data:** chips were drawn by a program, not measured; scores on them say "
            "nothing about real crops."
        )


def _on_size(card: dict) -> Iterator[str]:
    place, fields = card["place"], card["fields"]["all"]
    areas = fields["whole"] + fields["cut"]
    chips = sum(card["chips"].values())
    yield (
        f"{chips:,} chips cover {_number(place['km2'])} km² of ground, from "
        f"{_degrees(place['lat'], 'SN')} and from {_degrees(place['lon'], 'WE')}; "
        f"{_number(place['labelled_km2'])} km² of it are labelled. Other places of the region are "
        "not in the sample."
    )
    yield (
        f"The {card['balance']['labelled_pixels']:,} labelled pixels lie in {areas:,} fields of "
        f"{chips:,} chips: pixels of a field are alike, so the precision of a score is that of the "
        "chips and fields, not of the pixels."
    )


def _on_classes(card: dict) -> Iterator[str]:
    balance = card["balance"]
    largest = balance["largest"].get("test")
    if largest:
        yield (
            f"Answering “{largest['class']}” everywhere is right for {largest['share']:.1%} of the "
            "labelled test pixels: read an overall accuracy against this."
        )
    pixels = {name: card["classes"][name]["pixels"] for name in _CROPS}
    absent = [name for name, counts in pixels.items() if not any(counts.values())]
    if absent:
        yield f"No pixel is {_list(absent, 'or')}: the sample says nothing about {_them(absent)}."
    for split, other, lost in (
        ("test", "train", "it cannot be scored"),
        ("train", "test", "it cannot be learned"),
    ):
        for name, counts in pixels.items():
            if not counts.get(split) and counts.get(other):
                yield f"{name.capitalize()} occurs in {other} but not in {split}: {lost}."
    chips = {name: card["classes"][name]["chips"].get("test", 0) for name in _CROPS}
    few = {name: count for name, count in chips.items() if 0 < count < _FEW}
    tests = card["chips"].get("test", 0)
    if 0 < tests < _FEW:
        yield f"Only {_count(tests, 'chip')} to test on: one odd chip moves every score."
    elif few:
        named = [f"{name} in {count}" for name, count in few.items()]
        yield (
            f"Of {tests:,} test chips few hold some classes, {_list(named)}: one odd chip moves "
            "the scores of such a class."
        )


def _on_splits(card: dict) -> Iterator[str]:
    moved, neighbours = card["balance"]["train_to_test"], card["neighbours"]
    if moved is not None and moved > 0.1:
        yield (
            f"Train and test differ in their classes: {moved:.0%} of the labels would have to "
            "change for equal shares."
        )
    tests = card["chips"].get("test", 0)
    if neighbours["distance_km"] is None:
        return
    if neighbours["test_chips"]:
        lie = "lies" if neighbours["test_chips"] == 1 else "lie"
        yield (
            f"{neighbours['test_chips']:,} of {_count(tests, 'test chip')} {lie} beside a training "
            "chip: there a score tells how well a model fills gaps, not how it does elsewhere. "
            "`python -m jaxcrop.data split` draws splits that lie apart."
        )
    else:
        yield (
            "No test chip lies beside a training chip; the nearest centres are "
            f"{_number(neighbours['distance_km'])} km apart."
        )


def _on_labels(card: dict) -> Iterator[str]:
    missing = 1 - card["balance"]["labelled"]
    if missing > 0.1:
        yield (
            f"{missing:.0%} of the pixels have no label: what grows there is neither learned nor "
            "scored."
        )
    fields = card["fields"]["all"]
    if fields["cut_area"] > 0.2:
        yield (
            f"{fields['cut_area']:.0%} of the labelled area lies in fields that a chip's edge "
            "cuts, large ones more often than small: the sizes below are too small."
        )
    if fields["speck_area"] > 0.02:
        yield (
            f"{fields['speck_area']:.0%} of the labelled area is {fields['specks']:,} specks below "
            f"{card['speck_hectares']:g} ha: noise of the label map rather than fields, which no "
            "model should learn."
        )
    if card["labels"] == "harmonised":
        yield (
            "The label maps hold harmonised classes: a field is an area of one class, not one crop."
        )


def _on_images(card: dict) -> Iterator[str]:
    images = card["images"]
    total = images["count"]
    if images["dates_per_chip"] == [1, 1]:
        yield (
            "One image of each chip: crops that differ in their calendar alone cannot be told "
            "apart."
        )
    winter = f", {images['in_winter']:,} of them in winter" if images["in_winter"] else ""
    if images["outside_season"]:
        season = " to ".join(map(_day, card["season"]))
        yield (
            f"{_share(images['outside_season'], total)} images were taken outside the growing "
            f"season ({season}){winter}: the labelled crops need not stand in the field."
        )
    elif images["outside_season"] is None:
        yield (
            f"No growing season is stated for the {total:,} images{winter}: whether the crops "
            "stood in the field is not known."
        )
    if (images["cloudy"] or 0) > 0.05:
        yield f"{images['cloudy']:.0%} of the pixels are cloudy; their labels still count."
    removed = sum(n for key, n in images["offsets"].items() if not key.startswith("0 "))
    if removed and card["radiometry"] == "raw":
        yield (
            f"{_share(removed, total)} images still carry an offset of their digital numbers: they "
            "are brighter by 0.1 reflectance than images without."
        )
    doubted = sum(n for key, n in images["offsets"].items() if "(pixels)" in key)
    if doubted:
        yield (
            f"The pixels of {_count(doubted, 'image')} contradict the offset that the date implies."
        )


def _introduction(card: dict) -> str:
    chips = ", ".join(f"{count:,} {split}" for split, count in card["chips"].items())
    balance, place = card["balance"], card["place"]
    low, high = place["pixel_metres"]
    metres = f"{low:.1f} m" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f} m"
    present = sum(any(card["classes"][name]["pixels"].values()) for name in _CROPS)
    classes = (
        f"{present}, as diverse as {balance['effective_classes']:.1f} equally common ones; the "
        f"commonest has {_number(balance['ratio'])} times the pixels of the rarest"
    )
    projections = place["projections"]
    return _table(
        ("", ""),
        [
            ("chips", chips),
            ("labelled", f"{balance['labelled']:.1%} of the pixels"),
            ("classes", classes),
            ("pixel on the ground", metres),
            ("projections", ", ".join(projections[:4]) + (" …" if len(projections) > 4 else "")),
            ("images", f"{card['product']}, {card['images']['first']} to {card['images']['last']}"),
            ("rules", f"classes {card['harmonisation']}, radiometry {card['radiometry']}"),
        ],
    )  # fmt: skip


def _class_table(card: dict) -> str:
    splits = list(card["chips"])
    totals = {
        split: sum(card["classes"][name]["pixels"][split] for name in _CROPS) for split in splits
    }
    rows = []
    for name, row in card["classes"].items():
        if not any(row["pixels"].values()):
            continue
        pixels = sum(row["pixels"].values())
        shares = [f"{row['pixels'][split] / max(totals[split], 1):.1%}" for split in splits]
        mostly = [f"{code} {count / pixels:.0%}" for code, count in row["codes"].items()]
        chips = [f"{row['chips'][split]:,}" for split in splits]
        title = name
        if name not in _CROPS:
            title, shares = "no label", ["–"] * len(splits)
        rows.append((title, f"{pixels:,}", *shares, " / ".join(chips), ", ".join(mostly)))
    return _table(("class", "pixels", *splits, f"chips ({' / '.join(splits)})", "mostly"), rows)


def _field_table(card: dict) -> str:
    rows = [
        (
            name,
            f"{row['whole']:,}",
            f"{row['cut']:,}",
            f"{row['cut_area']:.0%}",
            f"{row['specks']:,}",
            f"{row['speck_area']:.1%}",
            *(_number(row[key]) for key in ("p10", "median", "p90", "half_area_below")),
        )
        for name, row in card["fields"].items()
    ]
    head = (
        *("class", "whole", "cut", "area cut", "specks", "their area"),
        *("10 %", "median", "90 %", "half the area below"),
    )
    return _table(head, rows)


def _image_table(card: dict) -> str:
    images = card["images"]
    months = [f"{_MONTHS[int(month) - 1]} {count:,}" for month, count in images["by_month"].items()]
    fewest, most = images["dates_per_chip"]
    dates = str(most) if fewest == most else f"{fewest} to {most}"
    season = " to ".join(map(_day, card["season"] or ())) or "not stated"
    offsets = [f"{count:,} × {offset}" for offset, count in images["offsets"].items()]
    return _table(
        ("", ""),
        [
            ("images", f"{images['count']:,}, {dates} of each chip"),
            ("by month", ", ".join(months)),
            ("growing season", season),
            ("cloudy", _percent(images["cloudy"])),
            ("no data", _percent(images["nodata"])),
            ("offset found, and how", ", ".join(offsets)),
        ],
    )  # fmt: skip


def _band_table(card: dict) -> str:
    rows = [
        (band, *(f"{row[key]:,.0f}" for key in ("mean", "std", "p2", "median", "p98")))
        for band, row in card["bands"].items()
    ]
    return _table(("band", "mean", "standard deviation", "2 %", "median", "98 %"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    left = {"", "class", "mostly", "band"}
    rule = [":--" if title in left else "--:" for title in head]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1%}"


def _share(count: int, total: int) -> str:
    return "All" if count == total else f"{count:,} of {total:,}"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _list(words: Sequence[str], last: str = "and") -> str:
    words = list(map(str, words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _them(words: Sequence[str]) -> str:
    return "it" if len(words) == 1 else "them"


def _day(day: str) -> str:
    month, date = day.split("-")
    return f"{int(date)} {_MONTHS[int(month) - 1]}"


def _degrees(ends: Sequence[float], signs: str) -> str:
    return " to ".join(f"{abs(value):.1f}° {signs[value >= 0]}" for value in ends)
