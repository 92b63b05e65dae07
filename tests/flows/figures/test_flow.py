"""What Prefect knows of figures."""

from pathlib import Path

from flows.figures.flow import figures
from flows.figures.request import FiguresRequest
from tests.flows.flow_runs import flow_run


def test_a_person_sees_the_figures_and_how_they_ended(prefect_ui: str, dataset: Path, tmp_path: Path) -> None:
    asked = FiguresRequest(source="synthetic", dataset=dataset, output=tmp_path / "f", samples=1)
    drawn = flow_run(figures, asked, tasks=set())
    assert drawn.ending == "Completed"
    assert {"distances", "grad-cam", "attention", "t-sne"} == set(drawn.artifacts)
    assert all("(data:image/png;base64," in picture for picture in drawn.artifacts.values())

    outside = asked.model_copy(update={"output": tmp_path / "g", "pixel": (64, 0)})
    refused = flow_run(figures, outside, tasks=set())
    assert refused.ending == "Refused" and not (tmp_path / "g").exists()
