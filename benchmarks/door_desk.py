"""What the cases of the door share: commands with small blocks on one worker, what a run holds, three verdicts."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray

from benchmarks.commands import LIMIT_S, Ended, dasnet

_LINES = 8
"""Lines that a refusal may have, warnings before it included."""

DATES = ("--before-date", "2019-06-01", "--after-date", "2021-06-01")
_SMALL = ("--block", "256", "--overlap", "0")
"""Windows that share nothing are fewest: what is looked at is what is read."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a user got of a case: what is right, a refusal that helps, or neither."""

    kind: Literal["right", "refused well", "wrong"]
    words: str


def right(words: str) -> Verdict:
    return Verdict(kind="right", words=words)


def wrong(words: str) -> Verdict:
    return Verdict(kind="wrong", words=words)


def judged(holds: bool, words: str, otherwise: object = "") -> Verdict:
    """Right where `holds`, else wrong with what was seen."""
    return right(words) if holds else wrong(f"{words}: no; {otherwise}")


def refusal(ended: Ended, *words: str | tuple[str, ...]) -> Verdict:
    """Whether a command refused as it should: exit code 2, a message of few lines with these words, in time.

    Args:
        words: each must be there; of several in a tuple one.
    """
    lines = ended.err.strip().count("\n") + 1
    said = re.sub(r"\S*/", "", ended.said.lower())  # folders have the names of cases
    choices = [(each,) if isinstance(each, str) else each for each in words]
    lacking = [choice for choice in choices if not any(word.lower() in said for word in choice)]
    faults = [
        *(["a traceback"] if ended.has_traceback else []),
        *([f"exit code {ended.code}"] if ended.code != 2 else []),
        *([f"{lines} lines"] if lines > _LINES else []),
        *([f"{ended.seconds:.0f} s"] if ended.seconds > LIMIT_S else []),
        *([f"nothing of {lacking}"] if lacking else []),
        *(["not foreseen"] if "This was not foreseen" in ended.err else []),
    ]
    shown = ended.said[-300:]
    return wrong(f"{', '.join(faults)}: {shown}") if faults else Verdict(kind="refused well", words=shown)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run directory.

    Attributes:
        ended: the command that made it.
    """

    directory: Path
    ended: Ended

    @property
    def is_done(self) -> bool:
        return self.ended.code == 0

    def _array(self, name: str) -> NDArray[Any]:
        import zarr

        array = zarr.open_group(self.directory / "run.zarr", mode="r")[name]
        return np.asarray(array[:])

    @property
    def images(self) -> NDArray[Any]:
        """(2, C, H, W)."""
        return self._array("image")

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(2, H, W), True = valid."""
        return self._array("valid").astype(bool)

    @property
    def probability(self) -> NDArray[np.uint8]:
        """(H, W) levels, 255 = nodata."""
        return self._array("change_probability")[0]

    @property
    def times(self) -> list[str]:
        """The day of each date."""
        import xarray as xr

        return [str(time)[:10] for time in xr.open_zarr(self.directory / "run.zarr")["time"].to_numpy()]

    @property
    def ledgers(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.directory / "ledger").glob("*.jsonl"))}

    def __str__(self) -> str:
        return f"exit code {self.ended.code}: {self.ended.said[-300:]}"


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where cases are tried.

    Attributes:
        folder: for what commands write.
        cluster: address of a running scheduler.
    """

    folder: Path
    cluster: str
    _numbers: Any = field(default_factory=itertools.count, repr=False)

    def place(self, name: str = "run") -> Path:
        """A path that is not there yet."""
        return self.folder / f"{name}-{next(self._numbers)}"

    def bundle(self, dtype: str) -> Path:
        """A bundle of random weights for three bands of a type."""
        from dasnet.networks.architectures import Architecture
        from dasnet.prediction.bundle import random_bundle, save_bundle

        path = self.folder / f"{dtype}.safetensors"
        if not path.exists():
            save_bundle(path, random_bundle(Architecture(backbone="mobilenet_v3", head_channels=96), dtype=dtype))
        return path

    def plan(self, before: Path, after: Path, *options: object) -> Ended:
        """`detect --dry-run`; of a running scheduler, so that no network is loaded to time it."""
        where = ("--output", self.place(), "--cluster", self.cluster)
        return dasnet("detect", before, after, "--dry-run", *where, *options)

    def detect(self, before: Path | str, after: Path | str, *options: object, **more: Any) -> Run:
        """`detect` in small blocks; `output`, `folder` may be given."""
        output = more.pop("output", None) or self.place()
        arguments = ("detect", before, after, "--output", output, "--cluster", self.cluster, *_SMALL, *options)
        return Run(directory=output, ended=dasnet(*arguments, limit_s=240, **more))

    def reprocess(self, *arguments: object, output: Path | None = None) -> tuple[Ended, Path]:
        output = output or self.place("archive")
        computing = ("--cluster", self.cluster) if "--dry-run" not in arguments else ()
        return dasnet("reprocess", *arguments, "--output", output, *computing, limit_s=240), output

    def prepare(self, folder: Path, *options: object) -> tuple[Ended, Path]:
        """`prepare` of a pair with `label.tif`, in windows of 64 px; the left half, where change is, is training."""
        output = self.place("dataset")
        ended = dasnet(
            *("prepare", "--before", folder / "before_20190601.tif", "--after", folder / "after_20210601.tif"),
            *("--label", folder / "label.tif", "--output", output, "--window", 64),
            *("--split", "columns:0.5,0.75", "--cluster", self.cluster, *options),
            limit_s=240,
        )
        return ended, output


def counts(dataset: Path) -> dict[int, int]:
    """How many pixels of a dataset's labels have each value (1 changed, 0 unchanged, 255 ignored)."""
    from flows.interface import Dataset

    values, number = np.unique(Dataset(dataset).samples["label"].to_numpy(), return_counts=True)
    return dict(zip(values.tolist(), number.tolist(), strict=True))


def pixels_of(path: Path) -> NDArray[Any]:
    """(C, h, w) as stored, whatever its header says."""
    with rasterio.open(path) as file:
        return np.asarray(file.read())


def same(run: Run, truth: NDArray[Any], *, date: int = 1, valid: NDArray[np.bool_] | None = None) -> tuple[bool, str]:
    """Whether a date of a run has these pixels, (C, h, w), where these are valid (None = all), and no other pixels."""
    if not run.is_done:
        return False, str(run)
    image, mask = run.images[date], run.valid[date]
    where = np.ones(truth.shape[1:], bool) if valid is None else valid
    if image.shape != truth.shape:
        return False, f"shape {image.shape}, not {truth.shape}"
    if not np.array_equal(mask, where):
        return False, f"{mask.mean():.1%} valid, not {where.mean():.1%}"
    differs = (image.astype(float) != truth.astype(float)) & where
    return not differs.any(), f"{differs.mean():.1%} of the values are others"


def json_of(ended: Ended) -> Any:
    """What a command printed as JSON."""
    return json.loads(ended.out)
