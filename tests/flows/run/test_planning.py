"""What is raised while a job is planned, and was not foreseen: a refusal in one line, and a traceback for who asks."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import dasnet.errors
from flows.run.context import planned
from flows.run.errors import REFUSALS, UNFINISHED, PlanningError
from flows.run.planning import DEBUG, planning
from storage.errors import InputError
from tests.flows.conftest import Dasnet
from tests.rasters import geotiff

REQUEST = SimpleNamespace(before="a.tif", after=["b.tif", "c.tif", "d.tif"])


def test_all_that_the_network_s_room_refuses_is_explained() -> None:
    own = [error for error in vars(dasnet.errors).values() if isinstance(error, type)]
    assert len(own) > 5 and all(issubclass(error, REFUSALS + UNFINISHED) for error in own)


def test_a_fault_of_ours_names_inputs_and_kind() -> None:
    with pytest.raises(PlanningError) as caught, planning(REQUEST):
        raise TypeError("unhashable type: 'list'\n  of something")
    message = str(caught.value)
    assert message.startswith("cannot plan a.tif, b.tif, c.tif and 1 more: TypeError: unhashable type: 'list'. ")
    assert "report" in message and DEBUG in message and "\n" not in message
    assert isinstance(caught.value.__cause__, TypeError)


def test_what_the_system_denies_is_said_in_its_words() -> None:
    with pytest.raises(PlanningError, match=r"cannot plan a\.tif.*: b\.tif: Permission denied$"), planning(REQUEST):
        raise PermissionError(errno.EACCES, "Permission denied", "b.tif")


def test_our_own_errors_pass() -> None:
    with pytest.raises(InputError, match=r"^no such file$"), planning(REQUEST):
        raise InputError("no such file")


def test_a_flow_that_plans_for_itself_is_refused_alike() -> None:
    def broken(request: object) -> None:
        raise ZeroDivisionError("float division by zero")

    with pytest.raises(PlanningError, match="ZeroDivisionError"):
        planned(REQUEST, broken)


def test_the_command_line_shows_one_line_or_with_the_variable_a_traceback(
    dasnet: Dasnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = geotiff(tmp_path / "a.tif", np.full((3, 64, 64), 9, np.uint8))

    def broken(*_: object, **__: object) -> None:
        raise TypeError("no grid today")

    monkeypatch.setattr("flows.detect.job.common_grid", broken)
    command = ("detect", image, image, "--output", tmp_path / "o", "--dry-run")
    ended = dasnet(*command)
    assert ended.code == 2
    assert ended.err.count("\n") == 1 and "TypeError: no grid today" in ended.err and "Traceback" not in ended.err
    monkeypatch.setenv(DEBUG, "1")
    ended = dasnet(*command)
    assert ended.code == 2
    assert "Traceback" in ended.err and ", in broken" in ended.err
