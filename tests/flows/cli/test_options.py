"""Options are the fields of requests: the same names, defaults and checks on the command line and in Prefect's form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import pytest
from dask.utils import parse_bytes
from pydantic import BaseModel, ValidationError

from flows.cli.commands import COMMANDS, imported
from flows.cli.main import dasnet, main
from flows.cli.options import RequestArgument, RequestOption, by_section, request_command, typed, typed_values
from flows.cluster.config import ClusterConfig
from scripts.options_page import PAGE, options_page

RENAMED = {
    "cluster.kind": "--cluster",
    "train cluster.lanes": "--threads",
    "compare cluster.lanes": "--threads",
    "train changes": "--set",
    "train from_bundle": "--from",
    "compare changes": "--set",
}
"""Fields whose options are called otherwise."""

FLOWS = ("detect", "reprocess", "prepare", "weights", "train", "evaluate", "compare", "figures")

PAIR = ("detect", "a.tif", "b.tif", "--output", "o")


def fields_of(schema: dict[str, Any], of: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Schema of each field by its path, from a model's JSON schema: what the Prefect form is drawn from."""
    fields: dict[str, Any] = {}
    for name, field in of["properties"].items():
        inner = next((each for each in (field, *field.get("anyOf", ()), *field.get("allOf", ())) if "$ref" in each), {})
        model = schema.get("$defs", {}).get(inner.get("$ref", "").rpartition("/")[2], {})
        if "properties" in model and name != "changes":
            fields |= fields_of(schema, model, f"{path}{name}.")
        else:
            fields[path + name] = field
    return fields


def context(*line: str) -> click.Context:
    command = request_command(line[0], COMMANDS[line[0]])
    return command.make_context(line[0], list(line[1:]))


def request(*line: str) -> Any:
    """What a command line asks."""
    return imported(COMMANDS[line[0]].request).model_validate(typed_values(context(*line)))


def at(model: BaseModel, path: tuple[str, ...]) -> Any:
    value: Any = model
    for name in path:
        value = None if value is None else getattr(value, name)
    return value


@pytest.mark.parametrize("name", FLOWS)
def test_every_field_has_its_option_and_every_option_its_field(name: str) -> None:
    model = imported(COMMANDS[name].request)
    schema = model.model_json_schema()
    expected = {}
    for path in fields_of(schema, schema):
        usual = f"--{path.rpartition('.')[2].replace('_', '-')}"
        expected[path] = RENAMED.get(f"{name} {path}", RENAMED.get(path, usual))
    options = {}
    for parameter in request_command(name, COMMANDS[name]).params:
        if isinstance(parameter, RequestArgument):
            options[parameter.field.path[-1]] = f"--{parameter.field.path[-1]}"
        elif isinstance(parameter, RequestOption) and not parameter.field.are_settings:
            options[".".join(parameter.field.path)] = parameter.opts[0]
    assert options == expected
    assert len(set(options.values())) == len(options), "no two fields share an option"
    assert {"--ui"} <= {option for each in request_command(name, COMMANDS[name]).params for option in each.opts}


@pytest.mark.parametrize("name", FLOWS)
def test_the_defaults_that_help_shows_are_those_of_the_request(name: str) -> None:
    """Typed out, they ask what leaving them out asks."""
    parameters = request_command(name, COMMANDS[name]).params
    required = [word for p in parameters if p.required and p.opts[0].startswith("--") for word in (p.opts[0], "x")]
    line = [name, *("x" for p in parameters if isinstance(p, click.Argument)), *required]
    line += ["--before", "x", "--after", "x", "--label", "x"] if name == "evaluate" else []
    usual, shown = request(*line), list(line)
    for parameter in parameters:
        if not isinstance(parameter, RequestOption) or parameter.required or parameter.field.are_settings:
            continue
        field, default = parameter.field, at(usual, parameter.field.path)
        if field.kind is bool:
            assert field.default is default
        elif field.default is not None and field.path != ("label",):
            assert typed(field.default) == typed(default), field.path
            shown += [parameter.opts[0], parameter.get_default(context(*line), call=True)]
    assert len(shown) > len(line) and request(*shown) == usual


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_complete_and_fits(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    pages = []
    for flag in ("-h", "--help"):
        monkeypatch.setattr(sys, "argv", ["dasnet", name, flag])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        pages.append(capsys.readouterr().out)
    page = pages[0]
    assert page == pages[1] and page.startswith(f"Usage: dasnet {name} ")
    assert max(map(len, page.splitlines())) <= 100
    for parameter in request_command(name, COMMANDS[name]).params:
        assert parameter.opts[0] in page or parameter.human_readable_name.upper() in page
        if isinstance(parameter, RequestOption | RequestArgument):
            assert parameter.field.description, f"{parameter.name} says nothing of itself"
    assert "None" not in page


def test_commands_are_listed_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dasnet.main(["--help"], prog_name="dasnet")
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in COMMANDS)


def test_what_must_be_given_comes_first() -> None:
    sections = by_section(request_command("detect", COMMANDS["detect"]).params)
    assert list(sections)[:2] == ["Arguments", "Options"] and list(sections)[-1] == "This command"
    assert sections["Options"][0].name == "output"


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        ((*PAIR, "--bands", "4,1,2"), "bands", [4, 1, 2]),
        ((*PAIR, "--bbox", "-10,40.5,5,50"), "grid.bbox", (-10, 40.5, 5, 50)),
        ((*PAIR, "--bbox=1,2,3,4"), "grid.bbox", (1, 2, 3, 4)),
        ((*PAIR, "--region", "r.geojson"), "grid.region", Path("r.geojson")),
        ((*PAIR, "--block", "512", "--block", "1024"), "block", 1024),
        ((*PAIR, "--compile"), "compile", True),
        ((*PAIR, "--cluster", "cuda", "--cluster-set", "rmm_pool=20GB"), "cluster.rmm_pool", "20GB"),
        ((*PAIR, "--cluster", "cuda", "--rmm-pool", "20GB"), "cluster.rmm_pool", "20GB"),
        ((*PAIR, "--cluster-set", "in_flight=5", "--in-flight", "6"), "cluster.in_flight", 6),
        ((*PAIR, "--in-flight", "6", "--cluster-set", "in_flight=5"), "cluster.in_flight", 6),
        ((*PAIR, "--cluster", "tls://h:1", "--certificates", "c"), "cluster.certificates", Path("c")),
        ((*PAIR, "--certificates", "c"), "cluster.certificates", None),
        (("detect", "--output", "o", "--", "-a.tif", "b.tif"), "before", "-a.tif"),
        (("reprocess", "cat.json", "--output", "o"), "archive", "cat.json"),
        (("reprocess", "a.tif", "b.tif", "--output", "o"), "archive", ["a.tif", "b.tif"]),
        (("prepare", "--output", "o", "--before", "a", "--after", "b", "--label", "c"), "source", None),
        (("prepare", "data", "--output", "o", "--shares", "7,2,1"), "shares", (7, 2, 1)),
        (("prepare", "data", "--output", "o", "--band-names", "red,nir"), "band_names", ["red", "nir"]),
        (("prepare", "data", "--output", "o", "--retries", "5"), "retries", 5),
        (("weights", "data", "--lanes", "2"), "cluster.lanes", 2),
        (("train", "d", "--output", "o"), "cluster.workers", 1),
        (("train", "d", "--output", "o", "--memory-limit", "8GB"), "cluster.workers", 1),
        (("train", "d", "--output", "o", "--cluster", "cuda"), "cluster.workers", None),
        (("train", "d", "--output", "o", "--threads", "3"), "cluster.lanes", 3),
        (("train", "d", "--output", "o", "--no-figures"), "figures", False),
        (("train", "d", "--output", "o", "--model", "fc-ef", "--set", "width=8"), "recipe", "fc_ef"),
        (("train", "d", "--output", "o", "--set", "augmentation.haze=0.4", "--set", "epochs=5"), "changes.epochs", 5),
        (("train", "d", "--output", "o", "--set", "supervision=[1,0,1]"), "changes.supervision", (1, 0, 1)),
        (("compare", "d", "--output", "o", "--methods", "cva,sfa"), "methods", ("cva", "sfa")),
        (("compare", "d", "--output", "o", "--set", "fc-ef.epochs=2"), "changes", {"fc-ef": {"epochs": 2}}),
        (("figures", "b", "--dataset", "d", "--output", "o", "--pixel", "3,4"), "pixel", (3, 4)),
    ],
)
def test_spellings(line: tuple[str, ...], path: str, value: object) -> None:
    assert at(request(*line), tuple(path.split("."))) == value


def test_certificates_of_the_environment_are_for_schedulers_that_speak_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASNET_CERTIFICATES", "c")
    assert request(*PAIR).cluster.certificates is None
    assert request(*PAIR, "--cluster", "tls://h:1").cluster.certificates == Path("c")


def test_a_mosaic_is_evaluated_as_detect_would_take_it() -> None:
    mosaic = ("--before", "a.tif", "--after", "b.tif", "--label", "l.tif", "--region", "r.geojson", "--block", "512")
    asked = request("evaluate", "b", "--output", "o", *mosaic, "--window", "128", "--workers", "3")
    assert asked.dataset is None
    again = request(
        "detect", "a.tif", "b.tif", "--output", "r", "--bundle", "b", "--region", "r.geojson", "--block", "512",
        "--window", "128", "--workers", "3", "--precision", "float32",
    )  # fmt: skip
    assert asked.detection(Path("r")) == again


def test_the_card_text_of_a_training_is_a_files(tmp_path: Path) -> None:
    (tmp_path / "about.txt").write_text(" Water of 2024. \n")
    assert request("train", "d", "--output", "o", "--about", str(tmp_path / "about.txt")).about == "Water of 2024."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ((*PAIR, "--nope"), "No such option '--nope'"),
        (PAIR[:3], "Missing option '--output'"),
        (PAIR[:2], "Missing argument 'AFTER'"),
        ((*PAIR, "c.tif"), "unexpected extra argument (c.tif)"),
        ((*PAIR, "--retries"), "'--retries' requires an argument"),
        (
            (*PAIR, "--block", "abc"),
            "block: Input should be a valid integer, unable to parse string as an integer, not",
        ),
        (
            (*PAIR, "--precision", "half"),
            "precision: Input should be 'auto', 'float32', 'bfloat16' or 'int8', not 'half'",
        ),
        ((*PAIR, "--bands", "1,x"), "--bands takes numbers with commas between them, not '1,x'"),
        ((*PAIR, "--cluster-set", "x"), "--cluster-set takes name=value, not 'x'"),
        ((*PAIR, "--cluster-set", "x=1"), "cluster.x: Extra inputs are not permitted"),
        ((*PAIR, "--memory-limit", "lots"), "cluster.memory_limit: 'lots' is no size in bytes"),
        ((*PAIR, "--cluster", "tcp://h:1", "--certificates", "c"), "certificates has no effect on cluster tcp://h:1"),
        (("train", "d", "--output", "o", "--set", "epochs"), "--set takes name=value, not 'epochs'"),
        (("train", "d", "--output", "o", "--about", "none.txt"), "'--about': [Errno 2]"),
        (
            ("compare", "d", "--output", "o", "--backbone-weights", "vgg16"),
            "--backbone-weights takes backbone=WEIGHTS, not",
        ),
        (("evaluate", "b", "--output", "o", "--dataset", "d", "--window", "64"), "mosaic.before: Field required"),
        (("deploy", "--pool", "moon"), "pool: Input should be 'process', 'docker' or 'kubernetes', not 'moon'"),
        (("server", "--port", "99999"), "port: Input should be less than or equal to 65535, not '99999'"),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    line: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dasnet", *line])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.out == ""
    assert message in " ".join(printed.err.split())


def test_a_size_is_what_dask_takes_for_one() -> None:
    sizes = ("8GB", "512MiB", "20 GB", "1e9", "1.5e3 kB", "8g", "8Gi", ".5TB", "100", "7b", "3pib")
    for size in sizes:
        assert parse_bytes(size) > 0 and ClusterConfig(memory_limit=size).memory_limit == size
    for nothing in ("lots", "", "-8GB", "0GB", "8 foos", "1iB", "8GBit"):
        with pytest.raises(ValidationError, match="no size in bytes"):
            ClusterConfig(memory_limit=nothing)


def test_the_page_of_options_is_current() -> None:
    assert PAGE.read_text() == options_page(), "python -m scripts.options_page writes it anew"
