"""What does tiling cost in accuracy? LEVIR's native scenes laid side by side as one mosaic, tile-wise against mosaic.

    python -m benchmarks.levir_mosaic --scenes FOLDER --bundle bundle.safetensors --work FOLDER

FOLDER has A, B and label with pictures of one size, 0.5 m a pixel; the mosaic is brought to the bundle's resolution by
`detect` itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

from benchmarks.common import machine
from dasnet.prediction.bundle import load_bundle
from flows.cluster.config import ClusterConfig
from flows.detect.request import DetectRequest
from flows.evaluation.request import EvaluateRequest
from flows.evaluation.run import run_evaluation

_COLUMNS = 4
_METRES = 0.5


def lay_out(scenes: Path, work: Path) -> dict[str, Path]:
    """before.tif, after.tif and label.tif, each all scenes of a folder side by side."""
    paths = {}
    for folder, name in (("A", "before"), ("B", "after"), ("label", "label")):
        pictures = [np.atleast_3d(np.asarray(Image.open(path))) for path in sorted((scenes / folder).iterdir())]
        side = pictures[0].shape[0]
        rows = -(-len(pictures) // _COLUMNS)
        canvas = np.zeros((pictures[0].shape[2], rows * side, _COLUMNS * side), dtype=np.uint8)
        for number, picture in enumerate(pictures):
            y, x = number // _COLUMNS * side, number % _COLUMNS * side
            canvas[:, y : y + side, x : x + side] = np.moveaxis(picture, -1, 0)
        paths[name] = work / f"{name}.tif"
        with rasterio.open(
            paths[name],
            "w",
            driver="GTiff",
            height=canvas.shape[1],
            width=canvas.shape[2],
            count=len(canvas),
            dtype="uint8",
            crs="EPSG:32614",
            transform=Affine(_METRES, 0, 620_000, 0, -_METRES, 3_350_000),
            tiled=True,
            compress="zstd",
        ) as file:
            file.write(canvas)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    resolution = load_bundle(arguments.bundle).resolution
    if resolution is None:
        parser.error(f"{arguments.bundle} does not say its resolution: prepare its dataset with --resolution 1.0")
    arguments.work.mkdir(parents=True, exist_ok=True)
    paths = lay_out(arguments.scenes, arguments.work)
    cluster = ClusterConfig(workers=arguments.workers)
    output = arguments.work / "evaluation"
    summary = run_evaluation(
        EvaluateRequest(
            bundle=arguments.bundle,
            output=output,
            mosaic=DetectRequest.model_validate(
                {
                    "before": str(paths["before"]),
                    "after": str(paths["after"]),
                    "output": output / "run",
                    "grid": {"resolution": resolution},
                    "resampling": "average",
                    "cluster": cluster,
                }
            ),
            label=paths["label"],
            cluster=cluster,
        )
    )
    assert summary.mosaic is not None
    mosaic, tiles = summary.mosaic.mosaic, summary.mosaic.tiles
    print(
        f"levir as a mosaic of {mosaic.total / 1e6:.1f} Mpx: blended {mosaic.describe()}; tile by tile "
        f"{tiles.describe()}; {machine()}"
    )


if __name__ == "__main__":
    main()
