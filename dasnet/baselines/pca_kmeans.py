"""PCA and k-means (Celik 2009): the difference image's patches by their principal components, in two clusters.

Celik takes the absolute difference of grey values; with several bands, of whatever units, the length of the change
vector stands in its place. Components and clusters are found on the grid's patches side by side, which are one in
sixteen of all; every pixel is then sorted by the patch around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasnet.baselines import otsu
from dasnet.baselines.cva import change_vectors, first_state
from dasnet.baselines.detector import SquaredLength
from dasnet.baselines.statistics import Moments, Names, Tally, pixel_pairs, require_pixels
from dasnet.baselines.untrained import State

SIDE = 4
"""Side of a patch, pixels; that of the paper. The patch of a pixel begins two rows above and two columns left of it."""
_REACH = SIDE // 2

_HALFWAY = 0.5
"""Between the clusters' centres, which lie at 0 and 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchDetector:
    """Where a pixel's patch lies on the line from the centre of the unchanged cluster, 0, to that of the changed, 1.

    The statistic is the square of that place, 0 below 0. Two clusters meet in the plane halfway, so the threshold is
    1/4. Where a patch reaches beyond the grid or into nodata, the pixel's own difference stands in.

    Attributes:
        length: the difference image, squared.
        weights: (4, 4) of the patch, row before column; place = Σ weights · differences + `offset`.
    """

    length: SquaredLength
    weights: NDArray[np.float64]
    offset: float
    halo: int = _REACH
    threshold: float = _HALFWAY**2

    def statistic(self, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        """See :class:`~dasnet.baselines.detector.Detector`."""
        size = np.sqrt(self.length.of(before, after))
        height, width = size.shape
        around = ((_REACH, _REACH), (_REACH, _REACH))
        wide, wide_valid = np.pad(size, around), np.pad(valid, around)
        place = np.full_like(size, self.offset)
        for row in range(SIDE):
            for col in range(SIDE):
                place_in_patch = (slice(row, row + height), slice(col, col + width))
                place += self.weights[row, col] * np.where(wide_valid[place_in_patch], wide[place_in_patch], size)
        return np.square(np.maximum(place, 0))

    def describe(self) -> str:
        """See :class:`~dasnet.baselines.detector.Detector`."""
        return f"{self.threshold:g}, the square of halfway between the centres of the two clusters"


def patches(image: NDArray[Any]) -> NDArray[Any]:
    """(h, w) to (16, n): the whole patches side by side; what is left at the right and lower edge is left out."""
    rows, cols = image.shape[0] // SIDE, image.shape[1] // SIDE
    cut = image[: rows * SIDE, : cols * SIDE].reshape(rows, SIDE, cols, SIDE)
    return cut.transpose(1, 3, 0, 2).reshape(SIDE * SIDE, rows * cols)


@dataclass(frozen=True)
class PcaKmeans:
    """Pass 1: means and deviations. Pass 2: components, and a first cut by Otsu. Then a step of k-means each."""

    name: str = "pca-kmeans"
    version: int = 1
    source: str = "Celik (2009), unsupervised change detection by PCA and k-means"
    halo: int = _REACH
    most_passes: int = 50
    energy: float = 0.9
    tolerance: float = 1e-3

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        return {
            "side": SIDE,
            "energy": self.energy,
            "tolerance": self.tolerance,
            "most_passes": self.most_passes,
            **otsu.PARAMETERS,
        }

    def count(self, state: State, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_]) -> Tally:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        if state.passes == 0:
            return Tally(moments=(Moments.of(pixel_pairs(before, after, valid)),))
        whole = patches(valid).all(axis=0)
        differences = patches(np.sqrt(self._length(state).of(before, after)))[:, whole]
        if state.passes == 1:
            return Tally(moments=(Moments.of(differences),), counts=otsu.histogram(np.square(differences.mean(axis=0))))
        changed = state.values["weights"] @ differences + state.values["offset"] >= _HALFWAY
        return Tally(moments=(Moments.of(differences[:, ~changed]), Moments.of(differences[:, changed])))

    def advance(self, state: State, tally: Tally, names: Names) -> State:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        if state.passes == 0:
            return first_state(tally, names)
        return self._components(state, tally, names) if state.passes == 1 else self._clusters(state, tally, names)

    def _components(self, state: State, tally: Tally, names: Names) -> State:
        (moments,) = tally.moments
        require_pixels(moments, names, what=f"patch of {SIDE} × {SIDE} pixels")
        cut = otsu.cut(tally.counts, names)
        values, vectors = np.linalg.eigh(moments.covariance)
        share = np.cumsum(values[::-1]) / values.sum()
        count = int(np.searchsorted(share, self.energy)) + 1
        return State(
            values={
                **state.values,
                "components": vectors[:, ::-1][:, :count].T,
                "patch": moments.mean,
                # changed where the patch's mean reaches the cut
                "weights": np.full(SIDE * SIDE, _HALFWAY / (cut * SIDE * SIDE)),
                "offset": np.array(0.0),
            },
            notes=(
                *state.notes,
                f"{count} components hold {share[count - 1]:.1%} of the patches' variance; first cut {cut:.4g}",
            ),
        )

    def _clusters(self, state: State, tally: Tally, names: Names) -> State:
        if not all(cluster.weight for cluster in tally.moments):
            raise otsu.one_class(names)
        # the cluster whose patches differ more is the changed one
        unchanged, changed = sorted(tally.moments, key=lambda cluster: float(cluster.mean.mean()))
        components, patch = state.values["components"], state.values["patch"]
        centres = np.stack([components @ (cluster.mean - patch) for cluster in (unchanged, changed)])
        between = centres[1] - centres[0]
        distance = float(between @ between)
        if not distance > 0:
            raise otsu.one_class(names)
        weights = components.T @ between / distance
        offset = -float(weights @ patch) - float(centres[0] @ between) / distance
        moved = np.inf
        if "centres" in state.values:
            moved = float(np.sqrt(np.square(centres - state.values["centres"]).sum(axis=1).max() / distance))
        note = (
            f"clusters of {unchanged.weight:,.0f} and {changed.weight:,.0f} patches, mean differences "
            f"{unchanged.mean.mean():.4g} and {changed.mean.mean():.4g}"
        )
        return State(
            finished=moved <= self.tolerance or state.passes + 1 == self.most_passes,
            values={**state.values, "centres": centres, "weights": weights, "offset": np.array(offset)},
            notes=(*state.notes, note),
        )

    def detector(self, state: State) -> PatchDetector:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        return PatchDetector(
            length=self._length(state),
            weights=state.values["weights"].reshape(SIDE, SIDE),
            offset=float(state.values["offset"]),
        )

    def _length(self, state: State) -> SquaredLength:
        return change_vectors(state.values["mean"], state.values["deviation"])
