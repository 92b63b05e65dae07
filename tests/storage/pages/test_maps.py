"""Maps of a layer lie over a picture where the layer's positions are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from storage.pages.maps import Cell, grid_of_maps


def test_the_light_square_is_drawn_around_its_position() -> None:
    values = np.zeros((8, 8))
    values[4, 2] = 1.0  # at row 32, column 16 of the picture
    drawn = {}
    for spacing in (0, 8):
        cells = [Cell(values=values, spacing=spacing)]
        picture = Image.open(io.BytesIO(grid_of_maps([cells], side=64, scale="share", high=1.0))).convert("RGB")
        pixels = np.asarray(picture).astype(int)
        dark, light = pixels[..., 2] - pixels[..., 0] > 40, pixels[..., 0] - pixels[..., 2] > 120
        first = int((dark | light).any(axis=0).argmax())
        end = first + int((~(dark | light).any(axis=0)[first:]).argmax())  # the scale stands behind a gap
        dark, light = dark[:, :end], light[:, :end]
        rows, columns = np.nonzero(dark | light)
        side = np.array([np.ptp(rows), np.ptp(columns)]) + 1
        drawn[spacing] = (np.argwhere(light).mean(axis=0) - [rows.min(), columns.min()]) / side * 64
    assert drawn[0] == pytest.approx([36, 20], abs=1), "the middle of the fifth and third eighth"
    assert drawn[8] == pytest.approx([32, 16], abs=1)
