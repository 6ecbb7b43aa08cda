"""The regions: where they lie, which dataset labels them, and which crops occur."""

from dataclasses import dataclass

from jaxcrop.crops import MAIZE, OTHER, RICE, SOYBEAN, WHEAT


@dataclass(frozen=True)
class Region:
    """One region of the study.

    `dataset` is the TFDS builder's name, `year` the labels' year, `classes` the harmonised classes
    that occur in the labels (datasets_spec section 2). The last version of the paper has five
    regions, the first had AgriFieldNet besides.
    """

    name: str
    continent: str
    dataset: str
    year: int
    classes: tuple[int, ...]
    in_paper: bool = True


REGIONS = {
    region.name: region
    for region in (
        Region("africa", "Africa", "sact", 2017, (WHEAT, OTHER)),
        Region("asia", "Asia", "nccm", 2019, (MAIZE, SOYBEAN, RICE, OTHER)),
        Region("europe", "Europe", "eurocrops", 2021, (MAIZE, SOYBEAN, RICE, WHEAT, OTHER)),
        Region("north-america", "North America", "cdl", 2023, (MAIZE, SOYBEAN, RICE, WHEAT, OTHER)),
        Region("south-america", "South America", "sas", 2021, (SOYBEAN, OTHER)),
        Region("india", "Asia", "agrifieldnet", 2021, (MAIZE, RICE, WHEAT, OTHER), in_paper=False),
    )
}
