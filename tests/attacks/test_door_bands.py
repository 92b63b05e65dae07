"""Which band is which: what is said deliberately wins over what a library assumes, or the user is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from tests.attacks.door import holds as assert_holds
from tests.attacks.door import image, pixels, planned, read, refused


def described(path: Path, *names: str) -> Path:
    with rasterio.open(path, "r+") as file:
        file.descriptions = names
    return path


def coloured(path: Path, *colours: ColorInterp) -> Path:
    with rasterio.open(path, "r+") as file:
        file.colorinterp = colours
    return path


def test_the_order_of_one_date_alone_is_another(tmp_path: Path) -> None:
    rgb = image(tmp_path / "before_20190601.tif", pixels())
    bgr = described(image(tmp_path / "after_20210601.tif", pixels()), "blue", "green", "red")
    job = planned(rgb, bgr)
    assert_holds(job, pixels(), date=0)
    assert_holds(job, pixels()[[2, 1, 0]], date=1)


def test_alpha_is_the_second_of_two_bands(tmp_path: Path) -> None:
    values = pixels(2)
    values[1] = 255
    values[1, :30] = 0
    path = coloured(image(tmp_path / "a.tif", values), ColorInterp.gray, ColorInterp.alpha)
    assert_holds(planned(path, bundle="cva"), values[:1], valid=values[1] > 0)


def test_alpha_of_floats(tmp_path: Path) -> None:
    values = pixels(4, dtype="float32")
    values[3] = 1.0
    values[3, :, :10] = 0.0
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    path = coloured(image(tmp_path / "a.tif", values), *colours)
    assert_holds(planned(path, bundle="cva"), values[:3], valid=values[3] > 0)


def test_alpha_is_the_first_band(tmp_path: Path) -> None:
    values = pixels(4)
    values[0] = 255
    values[0, 50:] = 0
    colours = (ColorInterp.alpha, ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    path = coloured(image(tmp_path / "a.tif", values), *colours)
    assert_holds(planned(path), values[1:], valid=values[0] > 0)


def test_near_infrared_by_its_description_is_no_alpha_whatever_its_colour(tmp_path: Path) -> None:
    values = pixels(4)
    values[3, :40] = 0
    path = described(image(tmp_path / "a.tif", values), "red", "green", "blue", "nir")
    assert_holds(planned(path), values[:3])


def test_alpha_that_is_one_stays_one(tmp_path: Path) -> None:
    values = pixels(4)
    values[3] = np.where(np.add.outer(np.arange(96), np.arange(96)) < 60, 0, 255)
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    path = coloured(image(tmp_path / "a.tif", values), *colours)
    assert_holds(planned(path), values[:3], valid=values[3] > 0)


def test_a_transparent_entry_of_a_palette_is_no_pixel(tmp_path: Path) -> None:
    index = pixels(1) % 8
    path = image(tmp_path / "a.tif", index, nodata=None)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {i: (10 * i, 20 * i, 30, 0 if i == 3 else 255) for i in range(8)})
    job = planned(path)
    values, valid = read(job)
    shown = np.stack([10 * index[0], 20 * index[0], np.full_like(index[0], 30)])
    # GeoTIFF keeps no alpha of its palette: then the entry is a colour like others
    with rasterio.open(path) as file:
        opaque = file.colormap(1)[3][3] == 255
    np.testing.assert_array_equal(valid, np.ones(valid.shape, bool) if opaque else index[0] != 3)
    np.testing.assert_array_equal(values[:, valid], shown[:, valid])


def test_landsats_files_are_bands_by_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    folder.mkdir()
    scene = "LC08_L2SP_195025_20190601_20200828_02_T1_SR"
    for seed, number in enumerate((2, 3, 4)):
        image(folder / f"{scene}_B{number}.TIF", pixels(1, seed=seed))
    truth = np.concatenate([pixels(1, seed=seed) for seed in (2, 1, 0)])
    assert_holds(planned(folder), truth)


def test_tiles_of_one_mosaic_with_other_orders(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    described(image(folder / "a.tif", pixels(seed=1)), "red", "green", "blue")
    east = rasterio.Affine(10, 0, 500_960, 0, -10, 5_600_000)
    described(image(folder / "b.tif", pixels(seed=2), transform=east), "blue", "green", "red")
    truth = np.concatenate([pixels(seed=1), pixels(seed=2)[[2, 1, 0]]], axis=2)
    assert_holds(planned(folder), truth)


def test_numbers_for_both_dates_whose_bands_they_are_not(tmp_path: Path) -> None:
    one = described(image(tmp_path / "before_20190601.tif", pixels(4)), "blue", "green", "red", "nir")
    other = described(image(tmp_path / "after_20210601.tif", pixels(4)), "nir", "red", "green", "blue")
    refused("--bands 3,2,1", "--before-bands", "--after-bands", mosaic=one, after=other, bands=[3, 2, 1])
    job = planned(one, other, before_bands=[3, 2, 1], after_bands=[2, 3, 4])
    assert_holds(job, pixels(4)[[2, 1, 0]], date=0)
    assert_holds(job, pixels(4)[[1, 2, 3]], date=1)


def test_free_names_with_ids_are_the_same_bands_by_wavelength(tmp_path: Path) -> None:
    paths = []
    for name, scene in (("before_20000317", "L71119038_20000317"), ("after_20030206", "L71119038_20030206")):
        path = image(tmp_path / f"{name}.img", pixels(3), driver="ENVI")
        header = path.with_suffix(".hdr")
        text = header.read_text()
        start = text.find("band names")
        text = text[:start] if start >= 0 else text
        bands = ",".join(f"Resize (Band {n}:{scene}_MTL.txt)" for n in (1, 2, 3))
        header.write_text(
            f"{text}\nband names = {{{bands}}}\nwavelength units = Micrometers\nwavelength = {{0.4825, 0.565, 0.66}}\n"
        )
        paths.append(path)
    job = planned(paths[0], paths[1], bundle="cva")
    assert [reader.bands for reader in job.readers] == [(1, 2, 3), (1, 2, 3)]
    assert_holds(planned(paths[0], paths[1]), pixels(3)[[2, 1, 0]])


def test_wavelengths_in_nanometres_say_which_band_is_red(tmp_path: Path) -> None:
    path = image(tmp_path / "a.img", pixels(4), driver="ENVI")
    header = path.with_suffix(".hdr")
    text = header.read_text()
    start = text.find("band names")
    text = text[:start] if start >= 0 else text
    header.write_text(f"{text}\nwavelength units = Nanometers\nwavelength = {{ 842.0, 665.0, 560.0, 490.0 }}\n")
    assert_holds(planned(path), pixels(4)[[1, 2, 3]])


def test_false_colour_is_not_taken_for_true_colour(tmp_path: Path) -> None:
    path = described(image(tmp_path / "a.tif", pixels()), "nir", "red", "green")
    refused("nir", "--bands", mosaic=path)
    assert_holds(planned(path, bands=[1, 2, 3]), pixels())


def test_sentinels_band_names_in_descriptions(tmp_path: Path) -> None:
    path = described(image(tmp_path / "a.tif", pixels(4)), "B02", "B03", "B04", "B08")
    assert_holds(planned(path), pixels(4)[[2, 1, 0]])


def test_files_that_end_in_a_colour_are_bands(tmp_path: Path) -> None:
    folder = tmp_path / "2019-06-01"
    folder.mkdir()
    for seed, name in enumerate(("red", "green", "blue")):
        image(folder / f"scene_{name}.tif", pixels(1, seed=seed))
    truth = np.concatenate([pixels(1, seed=seed) for seed in (0, 1, 2)])
    assert_holds(planned(folder), truth)


@pytest.mark.parametrize(
    "names",
    [
        ("bleu", "vert", "rouge"),
        ("Blau", "Grün", "Rot"),
        ("azul", "verde", "rojo"),
        ("BlueReflectance", "GreenReflectance", "RedReflectance"),
        ("490 nm", "560 nm", "665 nm"),
        ("0.49 µm", "0.56 um", "0.665 micrometers"),
        ("B2, central wavelength 490 nm", "B3, central wavelength 560 nm", "B4, central wavelength 665 nm"),
        ("BAND_B", "BAND_G", "BAND_R", "BAND_N"),
        ("B", "G", "R", "NIR"),
    ],
)
def test_names_in_other_words(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = described(image(tmp_path / "a.tif", pixels(len(names))), *names)
    job = planned(path)
    assert_holds(job, pixels(len(names))[[2, 1, 0]])
    assert "Sentinel" not in " ".join(job.warnings)


def test_one_list_of_numbers_for_names_that_say_nothing_of_colours(tmp_path: Path) -> None:
    """VV and VH have no common names, but the one is not the other."""
    paths = []
    for name, order in (("a_20190601.tif", ("VV", "VH")), ("b_20210601.tif", ("VH", "VV"))):
        path = image(tmp_path / name, pixels(2))
        with rasterio.open(path, "r+") as file:
            file.descriptions = order
        paths.append(path)
    refused("VV, VH", "VH, VV", "--before-bands", mosaic=paths[0], after=paths[1], bundle="cva", bands=[1, 2])
    job = planned(paths[0], paths[1], bundle="cva", before_bands=[1, 2], after_bands=[2, 1])
    assert_holds(job, pixels(2)[::-1])
    assert_holds(planned(paths[0], paths[1], bundle="cva"), pixels(2)[::-1])


def test_a_band_that_is_called_a_mask(tmp_path: Path) -> None:
    values = pixels(4, dtype="uint16")
    values[3] = 1
    values[3, :20] = 0
    path = described(image(tmp_path / "a.tif", values), "red", "green", "blue", "dataMask")
    assert_holds(planned(path), values[:3], valid=values[3] > 0)
    clouds = described(image(tmp_path / "b.tif", values), "red", "green", "blue", "cloud_mask")
    job = planned(clouds)
    assert_holds(job, values[:3])
    assert "band 4 is called cloud_mask" in " ".join(job.warnings)
    assert "--alpha 4" in " ".join(job.warnings)


def test_numbers_are_those_of_the_file_wherever_its_alpha_stands(tmp_path: Path) -> None:
    values = np.concatenate([np.full((1, 96, 96), 255, "uint8"), pixels(4)])
    values[0, :10] = 0
    path = image(tmp_path / "a.tif", values)
    coloured(path, ColorInterp.alpha, *[ColorInterp.undefined] * 4)
    assert_holds(planned(path, bands=[4, 3, 2]), values[[3, 2, 1]], valid=values[0] > 0)
    assert planned(path, bands=[4, 3, 2], bundle="cva").bundle.band_names == ("band4", "band3", "band2")
    refused("--bands asks for 1", "1 is its mask", mosaic=path, bands=[1, 2, 3])


def test_near_infrared_of_a_tile_of_water_is_no_mask(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    water = pixels(4, seed=1)
    water[3] = 0
    image(folder / "a.tif", pixels(4))
    image(folder / "b.tif", water, transform=rasterio.Affine(10, 0, 500_960, 0, -10, 5_600_000))
    job = planned(folder, bands=[4, 1, 2])
    assert_holds(job, np.concatenate([pixels(4), water], axis=2)[[3, 0, 1]])
    empty = np.zeros((4, 96, 96), "uint8")
    refused("no valid pixel", mosaic=image(tmp_path / "empty.tif", empty))


def test_bands_that_are_taken_by_their_order_are_said(tmp_path: Path) -> None:
    job = planned(image(tmp_path / "a.tif", pixels(dtype="uint16")))
    assert "band1 as red, band2 as green, band3 as blue; --before-bands settles it" in " ".join(job.warnings)
    settled = planned(image(tmp_path / "b.tif", pixels(dtype="uint16")), bands=[1, 2, 3])
    assert "by their order" not in " ".join(settled.warnings)


def test_numbers_for_one_date_alone_are_no_pair(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", pixels())
    refused("--after-bands", "--before-bands", mosaic=path, bundle="cva", after_bands=[3, 2, 1])
    assert_holds(planned(path, after_bands=[3, 2, 1]), pixels()[[2, 1, 0]])


def test_a_quality_mask_among_the_files_of_bands(tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    folder.mkdir()
    scene = "LC08_L2SP_195025_20190601_20200828_02_T1"
    for seed, number in enumerate((2, 3, 4)):
        image(folder / f"{scene}_SR_B{number}.TIF", pixels(1, seed=seed))
    image(folder / f"{scene}_QA_PIXEL.TIF", pixels(1, seed=9))
    job = planned(folder)
    assert_holds(job, np.concatenate([pixels(1, seed=seed) for seed in (2, 1, 0)]))
    assert "QA_PIXEL.TIF: no bands by their names" in " ".join(job.warnings)


def test_a_classification_is_no_tile_of_a_band(tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    folder.mkdir()
    image(folder / "T31UFS_20190601_B04_10m.tif", pixels(1), nodata=0)
    coarse = rasterio.Affine(20, 0, 500_000, 0, -20, 5_600_000)
    image(folder / "T31UFS_20190601_SCL_20m.tif", pixels(1, side=48), transform=coarse, nodata=0)
    refused("B04", "SCL_20m.tif", mosaic=folder, bundle="cva")


def test_colours_that_are_believed_though_names_say_other_things_are_said(tmp_path: Path) -> None:
    job = planned(described(image(tmp_path / "a.tif", pixels()), "ndvi", "ndwi", "savi"))
    assert "ndvi as red, ndwi as green, savi as blue" in " ".join(job.warnings)


def test_alpha_of_eight_bits_with_a_sign(tmp_path: Path) -> None:
    values = np.concatenate([pixels(), np.full((1, 96, 96), 255)]).astype("uint8").view("int8")
    values[3, :20] = 0
    path = described(image(tmp_path / "a.tif", values), "red", "green", "blue", "alpha")
    assert_holds(planned(path, bundle="cva"), values[:3], valid=values[3] != 0)
