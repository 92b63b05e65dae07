"""Archives as their makers write them: STAC, tables and GeoParquet, read by what they mean or refused in words."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flows.cli.info import InfoRequest, info
from flows.run.errors import PlanningError
from flows.run.planning import planning
from storage.archives.listing import DatedFiles, read_archive
from storage.errors import InputError
from storage.imagery.names.spec import named_rasters
from tests.attacks.door import image, pixels


def item(name: str = "scene", **changes: Any) -> dict[str, Any]:
    """A STAC item of ``a.tif``."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": None,
        "properties": {"datetime": "2019-06-01T10:00:00Z"},
        "links": [],
        "assets": {"data": {"href": "a.tif", "type": "image/tiff"}},
        **changes,
    }


def archive_of(folder: Path, text: str | bytes, name: str = "items.json") -> tuple[DatedFiles, ...]:
    """The dates of an archive with this content, beside ``a.tif``; errors as a command has them."""
    if not (folder / "a.tif").exists():
        image(folder / "a.tif", pixels())
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with planning(InfoRequest(paths=[str(path)])):
        return read_archive(path)


def items(*features: dict[str, Any], **more: Any) -> str:
    return json.dumps({"type": "FeatureCollection", "features": list(features), **more})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_stac_in_the_encoding_of_any_editor(tmp_path: Path, encoding: str) -> None:
    (files,) = archive_of(tmp_path, items(item()).encode(encoding))
    assert (files.day, files.paths) == (date(2019, 6, 1), (str(tmp_path / "a.tif"),))


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_addresses_of_assets_may_be_quoted(tmp_path: Path, prefix: str) -> None:
    path = image(tmp_path / "my scene.tif", pixels())
    href = f"file://{tmp_path}/my%20scene.tif" if prefix else "./my%20scene.tif"
    (files,) = archive_of(tmp_path, items(item(assets={"data": {"href": href, "type": "image/tiff"}})))
    assert files.paths == (str(path),) and not files.missing


@pytest.mark.parametrize(
    ("time", "words"),
    [("2099-06-01T00:00:00Z", "future"), ("0001-01-01T00:00:00+05:00", "is none"), (20190601, "is none")],
)
def test_a_date_that_cannot_be_one_is_named_with_its_item(tmp_path: Path, time: object, words: str) -> None:
    with pytest.raises(InputError, match=rf"STAC item scene .*{words}"):
        archive_of(tmp_path, items(item(properties={"datetime": time})))


@pytest.mark.parametrize("context", ["three", [3], None, {"matched": "3"}])
def test_a_context_that_says_nothing_is_none(tmp_path: Path, context: object) -> None:
    assert len(archive_of(tmp_path, items(item(), context=context))) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
        (items(item(assets={"data": {"href": "a.tif", "type": 5}})), "0 raster assets"),
        (items(item(assets={"data": {"href": "a.tif", "roles": [["data"]], "type": "image/png"}})), "0 raster assets"),
    ],
)
def test_what_is_no_stac_is_refused_in_our_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"items\.json.*{words}"):
        archive_of(tmp_path, text)


def test_a_refusal_names_the_inputs_and_no_option() -> None:
    with pytest.raises(PlanningError, match=r"^cannot plan a\.tif: TypeError"), planning(InfoRequest(paths=["a.tif"])):
        raise TypeError("words")


@pytest.mark.parametrize(
    "text",
    [
        "date;path\n2019-06-01;a.tif\n",  # where the comma is in numbers
        "Date\tPath\n2019-06-01\ta.tif\n",
        "# made by hand\n\nid, date, path,\n1, 2019-06-01, a.tif,\n",
        '"date","path"\r"2019-06-01","a.tif"\r',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_any_spreadsheet(tmp_path: Path, text: str, encoding: str) -> None:
    (files,) = archive_of(tmp_path, text.encode(encoding), "archive.csv")
    assert (files.day, files.paths) == (date(2019, 6, 1), (str(tmp_path / "a.tif"),))


def test_a_list_in_the_encoding_of_windows_names_files_in_that_of_the_disk(tmp_path: Path) -> None:
    path = image(tmp_path / "Île.tif", pixels())
    (files,) = archive_of(tmp_path, "date,path\n2019-06-01,Île.tif\n".encode("cp1252"), "archive.csv")
    assert files.paths == (str(path),)
    (tmp_path / "list.txt").write_bytes("Île.tif\n".encode("cp1252"))
    assert named_rasters(tmp_path / "list.txt").stacks == ((("", str(path)),),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("date,path\n2019-06-01,a,b.tif\n", "line 2: 3 cells.*quotes"),  # else another file
        ('date,path\n2019-06-01,"a.tif\n2020-06-01,a.tif\n', "unexpected end"),
        ("date,path\n2019-06-01,a\0.tif\n", "zero bytes"),
        ("date,path\n0001-01-01T00:00:00+05:00,a.tif\n", "line 2: .* is no date"),
    ],
)
def test_a_table_that_can_be_misread_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        archive_of(tmp_path, text, "archive.csv")


@pytest.mark.parametrize("name", ["x" * 300 + ".tif", "/".join(["folder"] * 1000) + "/a.tif"])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    (table,) = archive_of(tmp_path, f"date,path\n2019-06-01,{name}\n", "archive.csv")
    with pytest.raises(InputError, match="longer than names"), planning(InfoRequest(paths=["archive.csv"])):
        table.open()
    (missing,) = archive_of(tmp_path, items(item(assets={"data": {"href": name, "type": "image/tiff"}})))
    assert "does not exist" in missing.missing


def test_info_takes_a_table_without_dates_for_the_list_that_detect_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image(tmp_path / "a.tif", pixels())
    (tmp_path / "list.csv").write_text("path\na.tif\n")
    info(InfoRequest(paths=[str(tmp_path / "list.csv")], as_json=True))
    (described,) = json.loads(capsys.readouterr().out)
    assert (described["kind"], described["files"]) == ("imagery", 1)
