"""Synthetic regions: drawn farmland as Sentinel-2 would see it, with labels, as GeoTIFF files.

Nothing here is measured. A region is drawn from fields with a crop, a growth stage and a vigour
each, mixed from the spectra of `jaxcrop.data.spectra`, then seen through air and a sensor.
The five regions differ as the real ones do: season, soil, field size and shape, crop mix, haze and
calibration. Each is drawn in its growing season, which the published chips of Africa and South
America are not (datasets_spec section 0, row 11), so that one date can tell the crops apart. Every
chip, label and scene carries the tag SYNTHETIC=YES.
"""

import os
import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from jaxcrop.crops import CROPS, MAIZE, OTHER, RICE, SOYBEAN, WHEAT
from jaxcrop.data.bands import PUBLISHED_BANDS, SENTINEL2_BANDS
from jaxcrop.data.landscapes import LANDSCAPES, WILD, Landscape
from jaxcrop.data.spectra import COVERS, SPECTRA, ground_under
from jaxcrop.errors import InputError
from jaxcrop.regions import REGIONS

CHIP = 256
"""Height and width of a chip in pixels."""

BLOCK = 546
"""Height and width in pixels of a labelled block: four chips and a margin, whole 60 m pixels."""

PIXEL = 10.0
"""Metres per pixel."""

_COARSE = {"B05": 2, "B06": 2, "B07": 2, "B8A": 2, "B11": 2, "B12": 2, "B01": 6, "B09": 6, "B10": 6}
"""Native pixel size of the bands that are coarser than 10 m, in pixels of 10 m."""

# fmt: off
#                     B01   B02  B03  B04  B05  B06  B07  B08  B8A  B09   B10   B11   B12
_PATH = np.float32([ .102, .074,.041,.021,.017,.014,.012,.010,.008,.004,.0012,.0015,.0008])
_PASSED = np.float32([.80,  .84, .88, .91, .92, .93, .94, .95, .95, .45, .004,  .96,  .94])
_HAZE = np.float32([ .130, .105,.080,.062,.055,.048,.043,.036,.034,.015,.0010, .012, .006])
_CLOUD = np.float32([ .50,  .50, .50, .51, .52, .53, .54, .54, .54, .25, .020,  .40,  .30])
_REDNESS = np.float32([-.75,-.6, -.3, .12, .12, .08, .05, .03, .02, .00, .000,  .00,  .00])
# fmt: on
"""The air and the light by band: reflectance of clear air, its transmittance, what haze adds, and
clouds; last, the logarithm by which a soil of redness 1 differs from a grey one."""

_CROP_OF_COVER = {"maize": MAIZE, "soybean": SOYBEAN, "rice": RICE, "wheat": WHEAT}

_SHRUB, _TREES, _WATER, _ROAD, _ROOF = range(len(WILD))


class Drawing(NamedTuple):
    """A drawn piece of land, seen on `day`.

    `image` holds digital numbers (height, width, band); `code`, `crop` and `surveyed` say of every
    pixel (height, width) the raw code, the harmonised class and whether the labels know it.
    """

    image: NDArray[np.uint16]
    code: NDArray[np.uint8 | np.uint32]
    crop: NDArray[np.uint8]
    surveyed: NDArray[np.bool_]
    day: date


def write_region(out: Path, region: str, chips: int, seed: int) -> None:
    """Draw a synthetic region: `chips` chips in out/chips/*.tif, label maps in out/labels/*.tif.

    Chips are uint16 (13, 256, 256) in the order of PUBLISHED_BANDS, tagged ACQUISITION_DATE;
    label maps hold the raw codes of the region's dataset. The same seed draws the same pixels.
    Raises InputError for an unknown region, fewer than one chip, or a folder that holds some.
    """
    landscape = _landscape(region)
    if chips < 1:
        raise InputError(f"cannot draw {chips} chips: ask for at least one")
    _make_folder(out)
    targets = {name: out / name for name in ("labels", "chips")}
    for target in targets.values():
        if target.exists():
            raise InputError(f"{target} exists already: choose another folder")
    with tempfile.TemporaryDirectory(dir=out, prefix=".drawing-") as partial:
        for name in targets:
            (Path(partial) / name).mkdir()
        columns = max(1, round(np.sqrt(chips / 4)))
        for block in range(-(-chips // 4)):
            row, column = divmod(block, columns)
            left = landscape.origin[0] + column * BLOCK * PIXEL
            top = landscape.origin[1] - row * BLOCK * PIXEL
            drawing = draw(region, BLOCK, BLOCK, (seed, 0, block))
            labels = np.where(drawing.surveyed, drawing.code, landscape.wild_codes[0])
            label_at = from_origin(left, top + landscape.label_shift, PIXEL, PIXEL)
            _write_labels(
                Path(partial) / "labels" / f"{block:04d}.tif", labels, landscape.label_crs, label_at
            )
            for quarter in range(min(4, chips - 4 * block)):
                y, x = (10 + 270 * (quarter // 2), 10 + 270 * (quarter % 2))
                name = f"{drawing.day.year}_{4 * block + quarter:05d}.tif"
                _write_image(
                    Path(partial) / "chips" / name,
                    drawing.image[y : y + CHIP, x : x + CHIP],
                    landscape.crs,
                    from_origin(left + x * PIXEL, top - y * PIXEL, PIXEL, PIXEL),
                    drawing.day,
                )
        for name, target in targets.items():
            os.rename(Path(partial) / name, target)


def write_scene(out: Path, region: str, seed: int, height: int, width: int) -> None:
    """Draw a synthetic scene north of all chips of the region: out/scene.tif and out/truth.tif.

    The scene is as a chip, `height` x `width` pixels; the truth is uint8, the harmonised class of
    every pixel, with the colours of `jaxcrop.crops`. Raises InputError as `write_region` does.
    """
    landscape = _landscape(region)
    if min(height, width) < 1:
        raise InputError(f"cannot draw a scene of {height} x {width} pixels")
    _make_folder(out)
    drawing = draw(region, height, width, (seed, 1))
    at = from_origin(
        landscape.origin[0], landscape.origin[1] + (height + 1000) * PIXEL, PIXEL, PIXEL
    )
    with tempfile.TemporaryDirectory(dir=out, prefix=".drawing-") as partial:
        scene, truth = Path(partial) / "scene.tif", Path(partial) / "truth.tif"
        _write_image(scene, drawing.image, landscape.crs, at, drawing.day)
        colours = {i: (*crop.rgb, 255) for i, crop in enumerate(CROPS)}
        _write_labels(truth, drawing.crop, landscape.crs, at, colours)
        for path in (truth, scene):
            os.replace(path, out / path.name)


def draw(region: str, height: int, width: int, seed: tuple[int, ...]) -> Drawing:
    """Draw height x width pixels of a region; the same seed draws the same pixels."""
    landscape = _landscape(region)
    rng = np.random.default_rng((*seed, list(LANDSCAPES).index(region)))
    padded = tuple(-(-size // 6) * 6 for size in (height, width))
    elapsed = int(rng.integers(landscape.days))
    day = landscape.first_day + timedelta(days=elapsed)
    noise = {scale: _smooth_noise(rng, padded, scale) for scale in (1.2, 3, 20, 70)}
    land = _lay_out(rng, landscape, padded, noise)
    surface = _surface(rng, landscape, land, noise, day.timetuple().tm_yday + landscape.calendar)
    image = _seen_from_space(rng, landscape, surface)
    crops = np.array([_harmonised(region, cover) for _, cover, _ in landscape.crops], np.uint8)
    smallest = np.min_scalar_type(
        max(*landscape.wild_codes, *(code for code, _, _ in landscape.crops))
    )
    codes = np.array([code for code, _, _ in landscape.crops], smallest)
    field_crop = land.crop_of_field[land.field]
    is_field = land.wild < 0
    wild_codes = np.array(landscape.wild_codes, smallest)
    code = np.where(is_field, codes[field_crop], wild_codes[land.wild])
    crop = np.where(is_field, crops[field_crop], landscape.wild_crop).astype(np.uint8)
    piece = np.s_[:height, :width]
    return Drawing(
        image[piece], code[piece], crop[piece], land.surveyed[piece] | ~is_field[piece], day
    )


class _Land(NamedTuple):
    """The owner of every pixel (height, width), and the crop of every field.

    `wild` is the index in WILD of what a pixel is instead of field, or -1; `across` its place
    across the direction of work in pixels.
    """

    field: NDArray[np.int32]
    wild: NDArray[np.int8]
    surveyed: NDArray[np.bool_]
    across: NDArray[np.float32]
    crop_of_field: NDArray[np.int32]


class _Parcel(NamedTuple):
    pixels: NDArray[np.int32]
    box: tuple[float, float, float, float]


def _lay_out(rng, landscape: Landscape, shape, noise) -> _Land:
    """Farms cut into fields, with roads, hedges, woods, water, yards and centre pivots."""
    y, x = np.indices(shape, np.float32)
    angle = rng.uniform(-0.6, 0.6) if landscape.bend else 0.0
    u = np.cos(angle) * x - np.sin(angle) * y + landscape.bend * noise[70]
    v = np.sin(angle) * x + np.cos(angle) * y + landscape.bend * np.roll(noise[70], 97, axis=(0, 1))
    u, v = u.ravel(), v.ravel()
    size = u.size
    field = np.zeros(size, np.int32)
    wild = np.full(size, -1, np.int8)
    surveyed = np.zeros(size, bool)
    across = np.zeros(size, np.float32)
    crop_of_field = []
    shares = np.array([share for _, _, share in landscape.crops])
    shares /= shares.sum()
    whole = _Parcel(np.arange(size, dtype=np.int32), (u.min(), u.max() + 1, v.min(), v.max() + 1))
    for farm in _cut(rng, (u, v), whole, 12 * landscape.field, 1.0):
        # A farm has favourites: neighbouring fields share a crop more often than by chance.
        taste = rng.dirichlet(6 * shares)
        is_surveyed = rng.random() < landscape.surveyed
        for parcel in _cut(rng, (u, v), farm, landscape.field, landscape.aspect):
            pixels, (left, right, bottom, top) = parcel
            pu, pv = u[pixels], v[pixels]
            field[pixels] = len(crop_of_field)
            crop_of_field.append(rng.choice(len(shares), p=taste))
            surveyed[pixels] = is_surveyed
            lengthwise = (right - left) > (top - bottom)
            across[pixels] = pv if lengthwise else pu
            edge = np.minimum(np.minimum(pu - left, right - pu), np.minimum(pv - bottom, top - pv))
            hedge = _TREES if rng.random() < 0.25 else _SHRUB
            wild[pixels[edge < rng.uniform(0.2, 0.9)]] = hedge
            radius = 0.49 * min(right - left, top - bottom)
            if radius > 14 and rng.random() < landscape.pivots:
                distance = np.hypot(pu - (left + right) / 2, pv - (bottom + top) / 2)
                wild[pixels[distance > radius]] = _SHRUB
        pixels, (left, right, bottom, top) = farm
        pu, pv = u[pixels], v[pixels]
        edge = np.minimum(pu - left, pv - bottom)
        wild[pixels[edge < 0.9]] = _ROAD
        if rng.random() < 0.6:
            at_u, at_v = rng.uniform(left, right), rng.uniform(bottom, top)
            near = np.maximum(np.abs(pu - at_u), np.abs(pv - at_v))
            wild[pixels[near < 6]] = _TREES
            wild[pixels[(near < 4) & ((pu // 2 + pv // 3) % 2 < 1)]] = _ROOF
    field, wild, surveyed, across = (a.reshape(shape) for a in (field, wild, surveyed, across))
    _overgrow(rng, landscape, noise, wild)
    return _Land(field, wild, surveyed, across, np.array(crop_of_field))


def _overgrow(rng, landscape: Landscape, noise, wild: NDArray[np.int8]) -> None:
    """Put hills of scrub and wood, a river and ponds over the fields, in place."""
    height, width = wild.shape
    y, x = np.indices(wild.shape, np.float32)
    hills = noise[70] + 0.25 * noise[20]
    rough = hills > np.quantile(hills, 1 - landscape.wild)
    wild[rough] = np.where(noise[3] + 0.5 * noise[20] > 0.4, _TREES, _SHRUB)[rough]
    if rng.random() < 0.5:
        bends = 30 * np.sin(y / rng.uniform(40, 90)) + 5 * noise[20]
        bank = np.abs(x - rng.uniform(0, width) - bends)
        wild[bank < 5] = _TREES
        wild[bank < rng.uniform(1.5, 3.5)] = _WATER
    for _ in range(rng.poisson(height * width / 1e5)):
        shore = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width))
        wild[shore + 2 * noise[20] < rng.uniform(4, 10)] = _WATER


def _cut(rng, at, parcel: _Parcel, area: float, aspect: float) -> list[_Parcel]:
    """Halve a parcel until its parts measure about `area`, `aspect` times longer than wide."""
    u, v = at
    parts, done = [parcel], []
    while parts:
        pixels, (left, right, bottom, top) = parts.pop()
        if pixels.size == 0:
            continue
        wide, high = right - left, top - bottom
        if wide * high < 1.5 * area * np.exp(rng.normal(0, 0.35)):
            done.append(_Parcel(pixels, (left, right, bottom, top)))
        elif wide > aspect * high:
            cut = left + wide * rng.uniform(0.38, 0.62)
            below = u[pixels] < cut
            parts.append(_Parcel(pixels[below], (left, cut, bottom, top)))
            parts.append(_Parcel(pixels[~below], (cut, right, bottom, top)))
        else:
            cut = bottom + high * rng.uniform(0.38, 0.62)
            below = v[pixels] < cut
            parts.append(_Parcel(pixels[below], (left, right, bottom, cut)))
            parts.append(_Parcel(pixels[~below], (left, right, cut, top)))
    return done


def _surface(rng, landscape: Landscape, land: _Land, noise, day: float) -> NDArray[np.float32]:
    """Surface reflectance (band, height, width) on a day of the crops' northern calendar."""
    covers = [COVERS[cover] for _, cover, _ in landscape.crops]
    fields = len(land.crop_of_field)
    bands = len(SENTINEL2_BANDS)
    brightness, redness = landscape.soil
    soil = SPECTRA["soil"] * brightness * np.exp(redness * _REDNESS).astype(np.float32)
    green_share, dry_share, patches, swaths = np.zeros((4, fields), np.float32)
    green, dry, ground = np.zeros((3, fields, bands), np.float32)
    # Sowing dates, vigour and soils differ from field to field: more than crops differ at times.
    days = day + rng.normal(0, 9, fields)
    vigour = np.clip(rng.normal(1, 0.12, fields), 0.55, 1.25)
    shine = np.exp(rng.normal(0, 0.14, fields))
    for index, cover in enumerate(covers):
        (mine,) = np.nonzero(land.crop_of_field == index)
        green_share[mine], dry_share[mine] = cover.fractions(days[mine])
        patches[mine], swaths[mine] = cover.patches, cover.swaths
        green[mine], dry[mine] = SPECTRA[cover.green], SPECTRA[cover.dry]
        for one in mine:
            ground[one] = ground_under(cover, green_share[one], soil)
    green_share *= vigour
    # Leaves themselves differ as well: nitrogen and water move the whole spectrum a little.
    green *= np.exp(rng.normal(0, 0.07, (fields, 1)))
    ground *= shine[:, None]
    swath_length = rng.uniform(5, 14, fields).astype(np.float32)
    at = land.field
    wave = np.sin(2 * np.pi * land.across / swath_length[at])
    texture = 1 + patches[at] * (0.8 * noise[3] + 0.5 * noise[1.2]) + swaths[at] * wave
    texture += 0.07 * noise[20]
    cover_green = np.clip(green_share[at] * texture, 0, 0.98)
    cover_dry = np.clip(dry_share[at] * (1 + 0.1 * noise[20]), 0, 1 - cover_green)
    bare = 1 - cover_green - cover_dry
    bare *= 1 + 0.10 * noise[20] + 0.05 * noise[3]
    is_wild = land.wild >= 0
    wild_spectra = np.stack([SPECTRA[name] for name in WILD])
    wild_spectra[0] = 0.6 * wild_spectra[0] + 0.4 * soil
    speckle = 1 + 0.10 * noise[1.2] + 0.06 * noise[3]
    grain = 1 + 0.05 * rng.standard_normal(at.shape, np.float32)
    surface = np.empty((bands, *at.shape), np.float32)
    for band in range(bands):
        field = cover_green * green[at, band] + cover_dry * dry[at, band] + bare * ground[at, band]
        wild = wild_spectra[land.wild, band] * speckle
        surface[band] = np.where(is_wild, wild, field) * grain
    return surface


def _seen_from_space(rng, landscape: Landscape, surface) -> NDArray[np.uint16]:
    """Digital numbers (height, width, band) of a surface: air, haze, clouds, optics, noise."""
    shape = surface.shape[1:]
    haze = landscape.haze * np.exp(0.35 * _smooth_noise(rng, shape, 90) + rng.normal(0, 0.3))
    cloud = np.zeros(shape, np.float32)
    if rng.random() < 0.3:
        billow = _smooth_noise(rng, shape, 30) + 0.35 * _smooth_noise(rng, shape, 6)
        cloud = np.clip((billow - rng.uniform(2.0, 2.6)) / 0.5, 0, 1)
    shadow = np.roll(cloud, (-18, 25), axis=(0, 1))
    lit = 1 - 0.6 * shadow
    gains = np.float32(1e4 * landscape.gain * np.exp(rng.normal(0, 0.012, len(SENTINEL2_BANDS))))
    image = np.empty((*shape, len(SENTINEL2_BANDS)), np.uint16)
    for i, band in enumerate(SENTINEL2_BANDS):
        light = surface[i] * lit * _PASSED[i] * (1 - 0.12 * haze) + _PATH[i]
        light += _HAZE[i] * haze
        light = _resolved(light + cloud * (_CLOUD[i] - light), _COARSE.get(band, 1))
        numbers = gains[i] * light
        numbers += (8 + 0.008 * numbers) * rng.standard_normal(shape, np.float32)
        image[..., i] = np.clip(np.rint(numbers) + landscape.offset, 1, 65535)
    return image


def _resolved(light: NDArray, size: int) -> NDArray:
    """Blur by the optics; bands of coarser pixels are averaged to them and repeated."""
    if size == 1:
        return _blur(_blur(light, 0), 1)
    height, width = light.shape
    coarse = light.reshape(height // size, size, width // size, size).mean((1, 3))
    return coarse.repeat(size, 0).repeat(size, 1)


def _blur(light: NDArray, axis: int) -> NDArray:
    """Binomial filter (1 6 1) / 8 along an axis: about the point spread of a 10 m band."""
    pad = [(0, 0), (0, 0)]
    pad[axis] = (1, 1)
    wide = np.pad(light, pad, mode="edge")
    before, after = (wide[:-2], wide[2:]) if axis == 0 else (wide[:, :-2], wide[:, 2:])
    return (before + 6 * light + after) / 8


def _smooth_noise(rng, shape, scale: float) -> NDArray[np.float32]:
    """Gaussian noise (height, width) of unit variance in patches of about `scale` pixels."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    white = np.fft.rfft2(rng.standard_normal(shape, np.float32))
    smooth = np.fft.irfft2(white * np.exp(-2 * (scale * frequency) ** 2), s=shape)
    return ((smooth - smooth.mean()) / (smooth.std() + 1e-9)).astype(np.float32)


def _harmonised(region: str, cover: str) -> int:
    """The class of a cover; a crop that the region's labels do not know is other."""
    crop = _CROP_OF_COVER.get(cover, OTHER)
    return crop if crop in REGIONS[region].classes else OTHER


def _landscape(region: str) -> Landscape:
    if region not in LANDSCAPES:
        raise InputError(f"no region is called {region}: choose one of {', '.join(LANDSCAPES)}")
    return LANDSCAPES[region]


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InputError(
            f"cannot write to {out} ({error.strerror or error}): choose another folder"
        ) from error


def _write_image(path: Path, image, crs: str, transform, day: date) -> None:
    height, width, bands = image.shape
    order = [SENTINEL2_BANDS.index(band) for band in PUBLISHED_BANDS]
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype="uint16",
        crs=crs, transform=transform,
    ) as file:  # fmt: skip
        file.write(np.ascontiguousarray(image.transpose(2, 0, 1)[order]))
        file.descriptions = PUBLISHED_BANDS
        file.update_tags(ACQUISITION_DATE=day.isoformat(), SYNTHETIC="YES")


def _write_labels(path: Path, labels, crs: str, transform, colours=None) -> None:
    height, width = labels.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=labels.dtype,
        crs=crs, transform=transform, compress="deflate", tiled=True,
    ) as file:  # fmt: skip
        file.write(labels, 1)
        if colours:
            file.write_colormap(1, colours)
        file.update_tags(SYNTHETIC="YES")
