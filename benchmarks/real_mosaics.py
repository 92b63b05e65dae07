"""Real mosaics through the whole job; georeferencing, pixels and nodata against rasterio, one line each.

    python -m benchmarks.real_mosaics --data DATA --output runs

Look at ``report.html`` and ``quicklook.png`` in each folder of ``--output`` afterwards.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from benchmarks.common import machine


@dataclass(frozen=True, kw_only=True)
class Case:
    """A pair of files under the data folder, and what the request needs beside them."""

    name: str
    before: str
    after: str
    bands: int = 3
    request: dict[str, Any] = field(default_factory=dict)


NAIP = "naip/m_4709963_se_14_1_{}.tif"
CASES = (
    Case(name="naip", before=NAIP.format(20090818), after=NAIP.format(20190904), request={"bands": [1, 2, 3]}),
    Case(name="landsat", before="landsat/1985.tif", after="landsat/2020.tif", request={"bands": [1, 2, 3]}),
    Case(
        name="taizhou",
        before="taizhou/2000TM",
        after="taizhou/2003TM",
        bands=6,
        request={"before_date": "2000-03-17", "after_date": "2003-02-06"},
    ),
    Case(name="suriname", before="suriname/t0.tif", after="suriname/t1.tif"),
)


def check(run: Path, before: Path, after: Path, bands: int) -> str:
    """Compare a run with what rasterio itself reads and warps; one phrase a check."""
    store = xr.open_zarr(run / "run.zarr", mask_and_scale=False)
    with (
        rasterio.open(before) as first,
        rasterio.open(after) as second,
        rasterio.open(run / "change_probability.tif") as result,
    ):
        assert (result.crs, result.transform, result.shape) == (first.crs, first.transform, first.shape)
        image = store["image"].to_numpy()
        assert np.array_equal(image[0], np.where(first.dataset_mask() > 0, first.read(list(range(1, bands + 1))), 0))
        same_grid = (first.transform, first.shape) == (second.transform, second.shape)
        with WarpedVRT(
            second,
            crs=first.crs,
            transform=first.transform,
            width=first.width,
            height=first.height,
            resampling=Resampling.bilinear,
            add_alpha=True,
        ) as warped:
            there = warped.read(warped.count) > 0
            theirs = warped.read(list(range(1, bands + 1)))
        both = (first.dataset_mask() > 0) & there
        missing = result.read(1) == result.nodata
        valid = both & ~missing
        difference = np.abs(image[1].astype(int) - theirs)[:, valid]
        return (
            f"grid of the first date, its pixels unchanged; second date {'not resampled' if same_grid else 'resampled'}"
            f", {np.mean(difference <= 1):.4%} of its values within 1 of rasterio's; nodata {missing.mean():.3%}, "
            f"{int((missing == both).sum())} pixels otherwise than by rasterio"
        )


def main() -> None:
    from dasnet.networks.architectures import Architecture
    from dasnet.prediction.bundle import random_bundle, save_bundle
    from flows.detect.request import DetectRequest
    from flows.detect.run import run_detection

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with naip, landsat, taizhou and suriname")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs; finished ones are kept")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        request = dict(case.request)
        if case.bands != 3:
            bundle = options.output / f"random-{case.bands}.safetensors"
            if not bundle.exists():
                architecture = Architecture(backbone="mobilenet_v3", head_channels=96, in_bands=case.bands)
                save_bundle(bundle, random_bundle(architecture))
            request["bundle"] = str(bundle)
        before, after = options.data / case.before, options.data / case.after
        run = options.output / case.name
        run_detection(
            DetectRequest.model_validate({"before": str(before), "after": str(after), "output": run, **request})
        )
        print(f"real mosaics: {case.name}: {check(run, before, after, case.bands)}; {machine()}", flush=True)


if __name__ == "__main__":
    main()
