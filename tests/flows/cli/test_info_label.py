"""`dasnet info --label`: what a label raster holds and how it would be read, without anything being prepared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.flows.conftest import Dasnet
from tests.rasters import geotiff

CLASSES = np.zeros((64, 64), dtype=np.uint8)
CLASSES[:32, :32] = 1
CLASSES[60:] = 255


def test_values_and_rule_in_words(dasnet: Dasnet, tmp_path: Path) -> None:
    ended = dasnet("info", "--label", geotiff(tmp_path / "label.tif", CLASSES[None]))
    assert ended.code == 0, ended.err
    assert "0 (68.75%), 1 (25.00%), 255 (6.25%)" in ended.out
    assert "1 changed, 0 unchanged, 255 ignored" in ended.out and "255 beside 0 and 1" in ended.err


def test_what_prepare_would_refuse_is_described_with_the_reason(dasnet: Dasnet, tmp_path: Path) -> None:
    Image.fromarray(CLASSES % 255 + 1).save(tmp_path / "label.png")
    ended = dasnet("info", "--label", "--json", tmp_path / "label.png", tmp_path / "none.png")
    label, absent = json.loads(ended.out)
    assert label["rule"] is None and "--changed" in label["refused"] and label["crs"] is None
    assert ended.code == 2 and "does not exist" in absent["error"] and "Traceback" not in ended.err
