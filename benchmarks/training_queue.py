"""Many short trainings side by side on one machine, each through `dasnet train`'s own path, in processes that stay.

    python -m benchmarks.training_queue JOBS.json … --results RESULTS.jsonl [--at-once 12] [--follow FOLDER]

A file of jobs is a list of {"dataset", "output", "recipe", "set": ["name=value", …], "backbone_weights", "about",
"name", "comparison"}; only the first two are required. A job of a comparison, {"comparison": {…}} with the fields of
`dasnet compare`'s request, stands for all its trainings; `dasnet compare` with the same request then finds them done
and writes the tables.

One light network does not fill a GPU: it waits for the process that launches its kernels. So several processes share
the GPU, each with a Dask worker of its own in the very process; libraries are loaded once a process. With --follow,
files of jobs that appear in a folder are taken up too, until one named ``end`` appears. With --within, what still
trains after so many seconds is stopped, and the weights that validation liked best until then become its bundle; its
line says so. What is finished already is left alone, so the same command goes on after an interruption. A line of
results has validation's F1, the test scores where the dataset has a test split, seconds, and pairs a second and the
device's share of the time by epoch.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOOK_S = 1.0
_READING_THREADS = 3
"""Beside the one that launches a GPU's kernels: a first epoch reads every sample from the disk."""


def expanded(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trainings that a job stands for, as fields of `train`'s request in JSON, with a name each."""
    from flows.comparison.request import CompareRequest
    from flows.training.request import TrainRequest

    if "comparison" in job:
        request = CompareRequest.model_validate(job["comparison"])
        rows = [request.trainings(variant) for variant in request.variants if variant.is_trained]
        trainings = {one.key: one for seed in zip(*rows, strict=True) for one in seed}  # a seed of each row, then more
        return [_fields(one.request, name=key) for key, one in trainings.items()]
    fields = {
        name: job[name] for name in ("dataset", "output", "recipe", "backbone_weights", "about", "name") if name in job
    }
    asked = TrainRequest.model_validate({**fields, "changes": job.get("set", []), "figures": False})
    return [_fields(asked, name=job.get("name") or Path(job["output"]).name)]


def _fields(request: Any, *, name: str) -> dict[str, Any]:
    return {"title": name, **request.model_dump(mode="json", exclude_none=True, exclude={"cluster"})}


@contextmanager
def _worker_of_this_process() -> Iterator[str]:
    """A Dask cluster whose only worker is this process; its address."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any: without one it would be the same port for all
            memory_limit=0,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        from flows.cluster.layout import ClusterLayout
        from flows.cluster.lending import LentWorker, lending
        from tiling.execute import workers_of

        (address,) = workers_of(client)
        worker = LentWorker(client=client, layout=ClusterLayout(workers=1, lanes=1), address=address)
        with lending(worker):
            yield str(cluster.scheduler_address)


def train(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Run in a process of the pool: one training to its end, or what kept it from that."""
    from flows.cluster.config import ClusterConfig
    from flows.run.errors import reason_of
    from flows.training.request import TrainRequest
    from flows.training.run import run_training

    title = fields["title"]
    began = time.monotonic()
    facts: dict[str, Any] = {"name": title, "output": fields["output"]}
    try:
        with _worker_of_this_process() as address:
            cluster = ClusterConfig(kind=address, workers=1, lanes=_threads())
            request = TrainRequest.model_validate(
                {**{name: value for name, value in fields.items() if name != "title"}, "cluster": cluster}
            )
            summary = run_training(request)
        facts |= {"validation_f1": summary.validation_f1, "epochs": summary.epochs, "stopped": summary.stopped}
        if summary.test is not None:
            facts["test"] = summary.test.to_dict()
    except Exception as error:
        facts["failed"] = reason_of(error)
    facts["seconds"] = round(time.monotonic() - began, 1)
    return facts | _history(fields)


def _threads() -> int:
    import torch

    return 1 + _READING_THREADS if torch.cuda.is_available() else 1


def _history(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Validation's F1, pairs a second and the device's share of the time, by epoch."""
    from dasnet.training.directory import HISTORY

    history = Path(fields["output"]) / "training" / HISTORY
    if not history.exists():
        return {}
    lines = [json.loads(line) for line in history.read_text().splitlines() if line.endswith("}")]
    names = ("f1", "pairs_per_s", "device_share")
    return {"by_epoch": [{name: round(one[name], 3) for name in names} for one in lines if one["kind"] == "epoch"]}


def salvage(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Run in a process of the pool: the bundle of a training that was stopped, from its best weights so far.

    It has calibration, threshold and card as any other; the card says after how many epochs it ended.
    """
    import torch

    from dasnet.networks.encoders.start_weights import portable
    from dasnet.training.checkpoints import Progress
    from dasnet.training.directory import BEST
    from flows.run.errors import reason_of
    from flows.training.job import Outcome, TrainingJob
    from flows.training.rank import RankTask, make_bundle
    from flows.training.request import TrainRequest
    from flows.training.results import finished
    from storage.datasets.store import open_dataset

    facts: dict[str, Any] = {"name": fields["title"], "output": fields["output"], "stopped": "the time was over"}
    try:
        request = TrainRequest.model_validate({name: value for name, value in fields.items() if name != "title"})
        job = TrainingJob(request=request, store=open_dataset(request.dataset))
        task = RankTask(
            recipe=job.recipe,
            dataset=job.store.path,
            directory=job.directory.training,
            backbone_weights=request.weights and portable(request.weights),
            from_bundle=request.from_bundle,
            rank=0,
            world=1,
            rendezvous="",
            neighbours=1,
            threads=_threads(),
            cuda=torch.cuda.is_available(),
        )
        best = torch.load(job.directory.training / BEST, map_location="cpu", weights_only=True)
        trained = make_bundle(task, job.directory.draft)
        epochs = len(_history(fields)["by_epoch"])
        progress = Progress(epoch=epochs, best_f1=best["f1"], best_epoch=best["epoch"], stopped="the time was over")
        finished(Outcome(job=job, progress=progress, trained=trained, test=None))
        facts |= {"validation_f1": trained.validation.f1, "epochs": epochs}
    except Exception as error:
        facts["failed"] = reason_of(error)
    return facts | _history(fields)


def _in_a_process_of_the_pool() -> None:
    """Each process computes with one thread: there are more of them than cores. What a training needs is loaded."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    import flows.training.rank
    import flows.training.run  # noqa: F401

    torch.set_num_threads(1)


def run_queue(
    jobs: Sequence[Mapping[str, Any]],
    *,
    results: Path,
    at_once: int,
    follow: Path | None = None,
    within: float | None = None,
) -> list[dict[str, Any]]:
    """Train all that jobs stand for; returns, and appends to a file, what came of each.

    Args:
        results: a line of JSON each.
        at_once: trainings side by side.
        follow: folder whose files of jobs are taken up as they appear, until there is one named ``end``.
        within: seconds after which what is not finished is stopped; None = never.
    """
    waiting = [one for job in jobs for one in expanded(job)]
    taken: set[Path] = set()
    running: dict[Future[dict[str, Any]], dict[str, Any]] = {}
    ended: list[dict[str, Any]] = []
    began = time.monotonic()
    results.parent.mkdir(parents=True, exist_ok=True)

    def note(facts: dict[str, Any]) -> None:
        ended.append(facts)
        with results.open("a") as file:
            file.write(json.dumps(facts) + "\n")
        print(_line(facts, since=began), flush=True)

    pool = _pool(at_once)
    for _ in range(at_once):
        pool.submit(time.sleep, 1)  # each process starts now, and loads its libraries while jobs are waited for
    try:
        closed = follow is None
        while (waiting or running or not closed) and (within is None or time.monotonic() - began < within):
            if follow is not None:
                closed = (follow / "end").exists()
                for path in sorted(set(follow.glob("*.json")) - taken):
                    taken.add(path)
                    waiting += [one for job in json.loads(path.read_text()) for one in expanded(job)]
            while waiting and len(running) < at_once:
                fields = waiting.pop(0)
                running[pool.submit(train, fields)] = fields
            if not running:
                time.sleep(_LOOK_S)
            done, _ = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            for future in done:
                note(_outcome(future, running.pop(future)["title"]))
    finally:
        # those that still train would be waited for; nothing else ends them
        processes = list((pool._processes or {}).values()) if running else []
        for process in processes:
            process.kill()
        pool.shutdown(wait=True, cancel_futures=True)
    stopped = [fields for fields in running.values() if _has_best(fields)]
    for fields in running.values():
        if fields not in stopped:
            note({"name": fields["title"], "failed": "the time was over before its first epoch ended"})
    for fields in waiting:
        note({"name": fields["title"], "failed": "the time was over before it began"})
    if stopped:
        # a server of NVIDIA's MPS does not outlive the end of its clients in the middle of a kernel
        os.environ.pop("CUDA_MPS_PIPE_DIRECTORY", None)
        with _pool(min(at_once, len(stopped))) as salvaging:
            for facts in salvaging.map(salvage, stopped):
                note(facts)
    return ended


def _pool(count: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_in_a_process_of_the_pool)


def _has_best(fields: Mapping[str, Any]) -> bool:
    from dasnet.training.directory import BEST

    return (Path(fields["output"]) / "training" / BEST).exists()


def _outcome(future: Future[dict[str, Any]], title: str) -> dict[str, Any]:
    """What came of a training, also where its process died."""
    error = future.exception()
    return future.result() if error is None else {"name": title, "failed": f"{type(error).__name__}: {error}"}


def _line(facts: Mapping[str, Any], *, since: float) -> str:
    at = f"{time.monotonic() - since:6.1f} s {facts['name']}"
    if "failed" in facts:
        return f"{at}: failed: {facts['failed']}"
    rates = [one["pairs_per_s"] for one in facts.get("by_epoch", [])]
    rate = f", {rates[-1]:.0f} pairs/s" if rates else ""
    test = f", test {facts['test']['f1']:.3f}" if "test" in facts else ""
    lasted = f"{facts['seconds']} s" if "seconds" in facts else f"stopped after {facts['epochs']} epochs"
    return f"{at}: F1 {facts['validation_f1']:.3f} on validation{test}, {lasted}{rate}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=Path, nargs="*", help="files of jobs")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--at-once", type=int, default=12)
    parser.add_argument("--follow", type=Path, metavar="FOLDER")
    parser.add_argument("--within", type=float, metavar="SECONDS")
    options = parser.parse_args()
    jobs = [job for path in options.jobs for job in json.loads(path.read_text())]
    ended = run_queue(
        jobs, results=options.results, at_once=options.at_once, follow=options.follow, within=options.within
    )
    failed = [one["name"] for one in ended if "failed" in one]
    print(f"{len(ended) - len(failed)} trained, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}")


if __name__ == "__main__":
    main()
