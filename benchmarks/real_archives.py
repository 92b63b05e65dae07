"""Real archives through `dasnet reprocess`, one line each: what changed, and how near it is to water seen otherwise.

    python -m benchmarks.real_archives --data DATA --output archives [--only naip]

Look at ``versions/*/timeline.html`` in each folder of ``--output`` afterwards. Run again, only what is new is computed.

``naip``: eight dates of North Dakota's prairie potholes in red, green and blue; their grids differ by up to 4 m.

``landsat``: six false-colour dates of the Ucayali near Pucallpa. The bundle `water-extent` was trained on aerial images
and has never seen Landsat. It is given near infrared, the first shortwave infrared and red, so that water is dark blue
among brighter ground, at a third of the pixels' side, so that the river is about as many pixels wide as a pond is in
what it was trained on. Both were chosen on these very images.

Water seen otherwise: for ``naip`` the masks from near infrared, which the bundle is not given (it was trained on such
masks of the western part of the area); for ``landsat`` near infrared below a quarter of its range.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from benchmarks.common import machine

_NIR_BAND, _NIR_OF_WATER = 2, 64


@dataclass(frozen=True, kw_only=True)
class Case:
    """An archive under the data folder, and what the request needs beside it.

    Attributes:
        water: from the data folder and a day, the file and the band that tell water.
        look: from that band, where water is, and where that is known.
    """

    name: str
    archive: str
    water: Callable[[Path, str], tuple[Path, int]]
    look: Callable[[NDArray[np.uint8]], tuple[NDArray[np.bool_], NDArray[np.bool_]]]
    request: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case(
        name="naip",
        archive="naip/m_*.tif",
        water=lambda data, day: (data / "naip" / f"water_{day.replace('-', '')}.tif", 1),
        look=lambda mask: (mask == 1, mask != 255),
        request={"bundle": "water-extent", "bands": [1, 2, 3]},
    ),
    Case(
        name="landsat",
        archive="landsat/*.tif",
        water=lambda data, day: (data / "landsat" / f"{day[:4]}.tif", _NIR_BAND),
        look=lambda nir: (nir < _NIR_OF_WATER, nir != 0),
        request={"bundle": "water-extent", "bands": [2, 1, 3], "grid": {"resolution": 0.00027}},
    ),
)


def agreement(version: Path, case: Case, data: Path) -> str:
    """Precision and recall against the difference of two dates' water, over the pairs both of whose dates have it."""
    hit = called = there = pairs = 0
    for probability in sorted(version.glob("cells/*/*/change_probability.tif")):
        days = probability.parent.name[:21].split("_")
        files = [case.water(data, day) for day in days]
        if not all(path.exists() for path, _ in files):
            continue
        pairs += 1
        with rasterio.open(probability) as result:
            stored, threshold = result.read(1), _threshold(version)
            known, seen = stored != 255, []
            for path, band in files:
                with (
                    rasterio.open(path) as source,
                    WarpedVRT(
                        source,
                        crs=result.crs,
                        transform=result.transform,
                        width=result.width,
                        height=result.height,
                        resampling=Resampling.nearest,
                    ) as warped,
                ):
                    water, told = case.look(warped.read(band))
                    seen.append(water)
                    known &= told
        change, truth = known & (stored / 254 >= threshold), known & (seen[0] ^ seen[1])
        hit, called, there = hit + int((change & truth).sum()), called + int(change.sum()), there + int(truth.sum())
    precision, recall = hit / max(called, 1), hit / max(there, 1)
    f1 = 2 * hit / max(called + there, 1)
    return f"against water seen otherwise ({pairs} pairs): F1 {f1:.3f}, precision {precision:.3f}, recall {recall:.3f}"


def _threshold(version: Path) -> float:
    import zarr

    return float(str(zarr.open_group(version / "cube.zarr", mode="r").attrs["threshold"]))


def main() -> None:
    from flows.archive.request import ReprocessRequest
    from flows.archive.run import run_reprocessing
    from storage.pages.page import area_words

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with naip and landsat")
    parser.add_argument("--output", type=Path, required=True, help="folder for the archives; what is finished is kept")
    parser.add_argument("--only", choices=[case.name for case in CASES])
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if options.only not in (None, case.name):
            continue
        request = {
            "archive": str(options.data / case.archive),
            "output": options.output / case.name,
            "block": 1024,
            **case.request,
        }
        summary = run_reprocessing(ReprocessRequest.model_validate(request))
        version = summary.products["timeline"].parent
        print(
            f"real archives: {case.name}: "
            + ", ".join(f"{start} to {end} {area_words(came.changed_m2)}" for start, end, came in summary.pairs)
            + f"; {agreement(version, case, options.data)}; {version.name}; {machine()}",
            flush=True,
        )


if __name__ == "__main__":
    main()
