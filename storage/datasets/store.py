"""The dataset store: samples cut from scenes, for training and evaluation.

::

    dataset.zarr/
        before, after  (sample, band, y, x)    in the scenes' own type
        valid          (sample, date, y, x)    True = the pixel is there; before, after
        label          (sample, y, x)          uint8: 1 = changed, 0 = unchanged, 255 = not known, or nodata in a date
        split          (sample)                0 = train, 1 = val, 2 = test, −1 = left out
        changed, unchanged (sample)            labelled pixels by class
        source, row, col (sample)              name of the scene, and the window's upper-left pixel in it
        attributes: format, window, scenes (grids with CRS), counts of Table I, digest, class frequencies

A chunk is one sample, a shard some of them with one writer. A left-out sample keeps its place and is never read: how
many there are shows only while the pixels are read, once.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.errors import ZarrUserWarning

from storage.errors import InputError, IntegrityError
from storage.places.publish import sync
from storage.places.zarr_access import READING_FILES
from storage.stores.damage import is_damaged
from storage.stores.run_store import WRITING
from tiling.conventions import SPLITS

FORMAT = 1
LEFT_OUT = -1
DATES = ("before", "after")


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples as they lie in the store.

    Attributes:
        before, after: (n, C, s, s), 0 where invalid.
        valid: (n, 2, s, s), True = valid in that date.
        label: (n, s, s) uint8: 1 = changed, 0 = unchanged, 255 = no part of any loss or score.
    """

    before: NDArray[Any]
    after: NDArray[Any]
    valid: NDArray[np.bool_]
    label: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.label)


class DatasetStore:
    """A dataset store. Holds nothing but its path until samples are asked for, so it travels to workers.

    Raises:
        InputError: on first use, if there is no dataset store at `path`, or one of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._chosen: tuple[int, ...] | None = None

    def with_bands(self, numbers: Sequence[int]) -> DatasetStore:
        """The same store of which these bands alone are read, in this order; numbers from 1, of those it has now."""
        if tuple(numbers) == tuple(range(1, len(self.bands) + 1)):
            return self
        other = DatasetStore(self.path)
        other._chosen = tuple(n if self._chosen is None else self._chosen[n - 1] for n in numbers)
        return other

    @property
    def chosen(self) -> tuple[int, ...] | None:
        """Numbers (from 1) of the stored bands that are read, in this order; None = all as they are stored."""
        return self._chosen

    def __getstate__(self) -> dict[str, Any]:
        """For a worker, which may run in another folder: the same store."""
        return {"path": self.path.absolute(), "_chosen": self._chosen}

    @cached_property
    def _group(self) -> zarr.Group:
        try:
            group = zarr.open_group(self.path, mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{self.path} is no dataset store: {error}; make one with `dasnet prepare`") from error
        version = group.attrs.get("format")
        if version != FORMAT or "label" not in group:
            raise InputError(
                f"{self.path} has dataset format {version}; this version reads format {FORMAT}: prepare it again"
            )
        return group

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array]:
        with zarr.config.set(READING_FILES):
            arrays = {name: self._group[name] for name in ("before", "after", "valid", "label")}
        return {name: array for name, array in arrays.items() if isinstance(array, zarr.Array)}

    @cached_property
    def _for_writing(self) -> dict[str, zarr.Array]:
        with zarr.config.set(WRITING):
            return dict(zarr.open_group(self.path, mode="r+").arrays())

    @cached_property
    def attrs(self) -> dict[str, Any]:
        return dict(self._group.attrs)

    @property
    def window(self) -> int:
        """Side of a sample, pixels."""
        return int(self._arrays["label"].shape[-1])

    @property
    def dtype(self) -> str:
        return str(self._arrays["before"].dtype)

    @property
    def shard(self) -> int:
        """Samples in one shard."""
        return int(self._arrays["label"].shards[0])  # type: ignore[index]

    @property
    def digest(self) -> str:
        """SHA-256 over all samples, as hex; empty until the dataset is complete."""
        return str(self.attrs.get("digest", ""))

    def __len__(self) -> int:
        """Samples, left-out ones too."""
        return int(self._arrays["label"].shape[0])

    @property
    def labels(self) -> zarr.Array:
        """(N, s, s) uint8, to be read a shard at a time."""
        return self._arrays["label"]

    def open(self) -> xr.Dataset:
        """The store as a lazy dataset."""
        return xr.open_zarr(self.path, chunks=None)

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """Names of those that are read."""
        names = tuple(str(name) for name in self.open()["band"].to_numpy())
        return names if self._chosen is None else tuple(names[number - 1] for number in self._chosen)

    @cached_property
    def sources(self) -> NDArray[np.object_]:
        """(N,) name of the scene of each sample."""
        return np.asarray(self.open()["source"].to_numpy(), dtype=object)

    @cached_property
    def splits(self) -> NDArray[np.int8]:
        """(N,) index into :data:`SPLITS`, −1 = left out."""
        return np.asarray(self.open()["split"].to_numpy())

    def pixels(self, kind: str) -> NDArray[np.int64]:
        """(N,) labelled pixels of each sample that are "changed" or "unchanged"."""
        return np.asarray(self.open()[kind].to_numpy())

    @property
    def resolution(self) -> float | None:
        """Ground size of a pixel, metres, where the dataset knows it."""
        metres = self.attrs.get("resolution")
        return None if metres is None else float(metres)

    def positions(self) -> NDArray[np.int32]:
        """(N, 2) row and column of each sample's upper-left pixel in its scene."""
        table = self.open()
        return np.stack([table["row"].to_numpy(), table["col"].to_numpy()], axis=1)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Samples of a split, ascending.

        Raises:
            InputError: no such split, or it has no sample.
        """
        if split not in SPLITS:
            raise InputError(f"split {split!r} is none of {', '.join(SPLITS)}")
        members = np.flatnonzero(self.splits == SPLITS.index(split))
        if not len(members):
            counts = ", ".join(f"{name} {int((self.splits == n).sum())}" for n, name in enumerate(SPLITS))
            raise InputError(f"{self.path} has no sample in split {split!r} ({counts})")
        return members

    def changed(self, split: str) -> NDArray[np.int64]:
        """Samples of a split that have a changed pixel, ascending; InputError as of :meth:`indices`."""
        members = self.indices(split)
        return members[self.pixels("changed")[members] > 0]

    def lacks(self, split: str) -> str | None:
        """Which of "changed" and "unchanged" has not one pixel in a split; None where both have some."""
        inside = self.splits == SPLITS.index(split)
        return next((kind for kind in ("changed", "unchanged") if not self.pixels(kind)[inside].any()), None)

    def read(self, indices: Sequence[int]) -> Samples:
        """Samples in the order asked for; neighbours in a shard together cost a fifth of what each costs alone.

        Raises:
            IntegrityError: a shard is missing, or its bytes are not those that were written.
        """
        runs = list(self._runs(indices))
        return Samples(**{name: np.concatenate([self._read(name, *run) for run in runs]) for name in self._arrays})

    def _runs(self, indices: Sequence[int]) -> Iterator[tuple[int, int]]:
        """First and last + 1 of each run of indices that follow each other in a shard."""
        first = last = int(indices[0])
        for index in map(int, indices[1:]):
            if index != last + 1 or index % self.shard == 0:
                yield first, last + 1
                first = index
            last = index
        yield first, last + 1

    def _read(self, name: str, first: int, last: int) -> NDArray[Any]:
        array = self._arrays[name]
        path, shard = self._shard_at(name, first // self.shard)
        if not path.exists():
            raise IntegrityError(f"{path} is missing: these samples were never written, or were lost")
        try:
            pixels = np.asarray(array[first:last])
        except Exception as error:  # each codec pipeline has exceptions of its own
            if not is_damaged(array, path, shard):
                raise
            those = f"sample {first}" if last == first + 1 else f"samples {first} to {last - 1}"
            raise IntegrityError(
                f"{path}, {those}: its bytes have changed at rest and cannot be decoded: {error}"
            ) from error
        return pixels if self._chosen is None or name not in DATES else pixels[:, [n - 1 for n in self._chosen]]

    def write(self, first: int, samples: Samples) -> str:
        """Write one whole shard durably, from sample `first` on; returns the SHA-256 of its pixels, as hex."""
        last = first + len(samples)
        if first % self.shard or last != min(first + self.shard, len(self)):
            raise ValueError(
                f"samples {first}–{last} are not one shard of {self.shard}: two writers of one would lose each other's"
            )
        digest = hashlib.sha256()
        for name in self._arrays:
            pixels = np.ascontiguousarray(getattr(samples, name))
            self._for_writing[name][first:last] = pixels
            path, _ = self._shard_at(name, first // self.shard)
            sync(path)
            sync(path.parent)
            digest.update(pixels.data)
        return digest.hexdigest()

    def finish(
        self,
        splits: NDArray[np.int8],
        *,
        changed: Sequence[int],
        unchanged: Sequence[int],
        attrs: Mapping[str, Any],
    ) -> None:
        """Record which split each sample belongs to, its labelled pixels, and facts about the whole."""
        self._for_writing["split"][:] = splits
        self._for_writing["changed"][:] = np.asarray(changed, dtype=np.int64)
        self._for_writing["unchanged"][:] = np.asarray(unchanged, dtype=np.int64)
        self.set_attrs(attrs)

    def set_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Merge JSON values into the store's attributes."""
        zarr.open_group(self.path, mode="r+", use_consolidated=False).attrs.update(dict(attrs))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(self.path)
        for name in ("_group", "attrs", "splits"):
            self.__dict__.pop(name, None)

    def _shard_at(self, name: str, number: int) -> tuple[Path, tuple[int, ...]]:
        """Where a shard lies, and which one of the array it is."""
        index = (number, *(0,) * (self._arrays[name].ndim - 1))
        return self.path.joinpath(name, "c", *map(str, index)), index


def open_dataset(path: Path) -> DatasetStore:
    """A complete dataset store: DIR of `dasnet prepare`, or the ``dataset.zarr`` in it.

    Raises:
        InputError: no dataset there, of another format, or not finished.
    """
    path = Path(path).resolve()  # workers may run in another folder
    inner = path / "dataset.zarr"
    if not inner.exists() and not (path / "zarr.json").exists():
        unfinished = path / ".dataset.zarr.partial"
        state = "is not finished: run `dasnet prepare` again" if unfinished.exists() else "holds no dataset.zarr"
        raise InputError(f"{path} {state if path.exists() else 'does not exist'}")
    store = DatasetStore(inner if inner.exists() else path)
    if not store.digest:
        raise InputError(f"{store.path} is not finished: run `dasnet prepare` again")
    return store


def few_of(indices: NDArray[np.int64], count: int) -> list[int]:
    """At most `count` of some samples, ascending and always the same ones.

    They are drawn, by a fixed seed: at even distances all of them could be of one place, where scenes are equally wide.
    """
    chosen = np.random.default_rng(0).choice(len(indices), size=min(count, len(indices)), replace=False)
    return [int(index) for index in np.sort(indices[chosen])]
