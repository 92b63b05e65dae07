"""The picture of the rooms is that of the code, whoever draws it."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from scripts.rooms import HOUSES, PICTURE, Plan, draw, read_code

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_code()


def test_committed_picture_is_current(plan: Plan) -> None:
    assert PICTURE.read_text() == draw(plan), "draw it anew: python -m scripts.rooms"


def test_every_room_is_in_the_picture_and_nothing_overlaps(plan: Plan) -> None:
    tree = ElementTree.fromstring(draw(plan))
    texts = [text.text for text in tree.iter(f"{SVG}text")]
    assert all(name.rpartition(".")[2] in texts for name in plan.sizes)
    boxes = [house.box(room) for house in HOUSES for room in house.rooms]
    for number, (left, top, right, bottom) in enumerate(boxes):
        for x0, y0, x1, y1 in boxes[number + 1 :]:
            assert right <= x0 or x1 <= left or bottom <= y0 or y1 <= top


def test_an_arrow_upwards_is_refused(plan: Plan) -> None:
    upwards = replace(plan, imports={**plan.imports, "storage.places": {"storage.synthetic"}})
    with pytest.raises(ValueError, match="storage/places imports storage/synthetic"):
        draw(upwards)


def test_a_circle_is_refused(plan: Plan) -> None:
    circle = {**plan.imports, "flows.run": {"flows.cli"}}
    with pytest.raises(ValueError, match="flows: its rooms import each other in a circle"):
        draw(replace(plan, imports=circle))
