"""Training: one rank's loop over epochs, exact to resume.

Everything random is a function of the recipe's seed and the step, sums are taken in one order, and the whole state is
in the checkpoint; so a run that was killed at any moment and resumed has the bits of one that was not, on a GPU too.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from dasnet.errors import NonFiniteLossError, TrainingError
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.encoders.low_rank import add_adapters
from dasnet.networks.methods import build_network
from dasnet.training.checkpoints import Progress, TrainingFiles
from dasnet.training.optimizers import Encoder, optimizer_of, rising_average, set_rate
from dasnet.training.parallel import Ranks, made_parallel, sums_in_one_order, torch_threads, with_statistics_of_all_gpus
from dasnet.training.recipes import Recipe, TrainingData
from dasnet.training.samples import Batch, KeptSamples, Order, SampleSource, prefetched
from dasnet.training.validation import validation_sweep
from tiling.conventions import IGNORED

_CHECKPOINT_EVERY_S = 120.0


class Pairs(nn.Module):
    """What is trained: images of both dates in, what the loss is taken of out, in one forward pass."""

    def __init__(self, model: ChangeNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(2b, C, s, s) normalised, to the network's outputs for b pairs."""
        return tuple(self.model.outputs(images))


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One rank's part of a training run.

    Attributes:
        directory: for checkpoints and history; all ranks see the same one.
        changed: training samples with a changed pixel.
        device: "cpu", "cuda" or "cuda:N".
        threads: torch's own on a CPU; the bits depend on their number.
        loader_threads: that read and, for a CPU, augment.
        memory: bytes of samples that may be kept once they are read; 0 = none.
        shard: samples that lie together in the source, and are kept together.
        initial: state dict of the whole network or of a part of it to start from; None = from scratch.
        on_epoch: called on the first rank after validation with the validated network, the normalisation of a batch,
            the best threshold of the distance and the device.
    """

    recipe: Recipe
    data: TrainingData
    source: SampleSource
    changed: NDArray[np.int64]
    directory: Path
    ranks: Ranks
    device: str = "cpu"
    threads: int = 1
    loader_threads: int = 1
    memory: int = 0
    shard: int = 1
    initial: dict[str, Tensor] | None = None
    on_epoch: Callable[[nn.Module, Callable[[Batch], Tensor], float, torch.device], None] | None = None

    def run(self, *, stop_after: int | None = None) -> Progress:
        """Train from the last checkpoint, or from the start, to the end.

        Args:
            stop_after: steps of this call after which to stop without a word; for tests.

        Raises:
            NonFiniteLossError: naming epoch, step and samples.
            TrainingError: a checkpoint of another recipe or dataset.
        """
        with torch_threads(self.threads), sums_in_one_order(torch.device(self.device)):
            return _Trainer(self).train(stop_after)


class _Trainer:
    def __init__(self, run: TrainingRun) -> None:
        self.run, self.recipe, self.sampling, self.ranks = run, run.recipe, run.recipe.sampling, run.ranks
        settings = run.recipe.optimizer
        self.device = torch.device(run.device)
        on_gpu = self.device.type == "cuda"
        torch.manual_seed(self.recipe.seed)
        model = build_network(self.recipe.network.architecture(len(run.data.bands)))
        if run.initial is not None:
            model.load_state_dict(run.initial, strict=False)  # fits: backbone_weights has looked at every key
        if adapters := self.recipe.adapters:
            add_adapters(model.get_submodule("backbone"), rank=adapters)
        self.dropouts = made_parallel(model, dropout=self.recipe.network.dropout, ranks=self.ranks, on_gpu=on_gpu)
        model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if on_gpu and self.ranks.world > 1:
            model = with_statistics_of_all_gpus(model)
        self.model = model
        self.pairs: nn.Module = Pairs(model)
        self.averaged = (
            AveragedModel(model, multi_avg_fn=rising_average(settings.ema), use_buffers=True) if settings.ema else None
        )
        if settings.compile:
            self.pairs.compile()
        if self.ranks.world > 1:
            self.pairs = DistributedDataParallel(
                self.pairs,
                device_ids=[self.device] if on_gpu else None,
                broadcast_buffers=False,
                # a branch without λ has no gradient
                find_unused_parameters=not all(self.recipe.network.supervision) or model.leaves_weights_alone,
            )
        self.encoder = Encoder(model, run.initial or (), settings, ranks=self.ranks.world)
        self.optimizer = optimizer_of(model, settings, encoder=self.encoder, on_gpu=on_gpu)
        self.loss = self.recipe.loss_of(run.data.frequency)
        self.mean = torch.tensor([mean for _, mean, _ in run.data.bands], device=self.device)[:, None, None]
        self.std = torch.tensor([std for _, _, std in run.data.bands], device=self.device)[:, None, None]
        self.source = KeptSamples(run.source, memory=run.memory, shard=run.shard) if run.memory else run.source
        self.order = Order(recipe=self.recipe, samples=run.source.indices("train"), changed=run.changed)
        self.steps = self.order.steps * self.sampling.epochs
        self.files = TrainingFiles(run.directory, identity=self._identity())
        self.progress = Progress()
        self.saved = time.monotonic()
        self.micro = self.sampling.micro_batch
        if self.micro % self.ranks.world:
            raise TrainingError(
                f"a batch of {self.sampling.batch} in {self.sampling.accumulate} passes cannot be spread evenly over "
                f"{self.ranks.world} ranks"
            )

    def train(self, stop_after: int | None) -> Progress:
        self._resume()
        taken = 0
        while self.progress.epoch < self.sampling.epochs and not self.progress.stopped:
            self.pairs.train()
            waited = computed = 0.0
            losses: list[float] = []
            mark = time.perf_counter()
            for passes in self._epoch_batches():
                ready = time.perf_counter()
                waited += ready - mark
                losses.append(self._step(passes))
                self.progress.step += 1
                taken += 1
                mark = time.perf_counter()
                computed += mark - ready
                if self.progress.step < self.order.steps and time.monotonic() - self.saved > _CHECKPOINT_EVERY_S:
                    self._save()
                if stop_after is not None and taken >= stop_after:
                    return self.progress
            self._end_epoch(losses, waited=waited, computed=computed)
        return self.progress

    def _epoch_batches(self) -> Iterator[list[Batch]]:
        """What is left of the epoch: for each step its passes, this rank's part of them."""
        order = self.order.of_epoch(self.progress.epoch)
        part = self.ranks.part(self.micro)
        work = []
        for step in range(self.progress.step, self.order.steps):
            for first in range(0, self.sampling.batch, self.micro):
                places = range(first, first + self.micro)[part]
                work.append(
                    (
                        [int(order[step, place]) for place in places],
                        [self.order.seed(self.progress.epoch, step, place) for place in places],
                    )
                )
        batches = prefetched(
            self.source,
            work,
            augmentation=self.recipe.augmentation,
            threads=self.run.loader_threads,
            device=self.device,
        )
        while passes := [batch for _, batch in zip(range(self.sampling.accumulate), batches, strict=False)]:
            yield passes

    def _step(self, passes: Sequence[Batch]) -> float:
        """One optimizer step over the passes of a global batch; returns its loss."""
        number = self.progress.epoch * self.order.steps + self.progress.step
        labelled = [(batch.labels != IGNORED).sum() for batch in passes]
        pixels = self.ranks.sum(torch.stack(labelled).sum())
        self.model.begin_step(number, self.steps)
        frozen = self.encoder.begin_step(number, self.steps)
        parts = torch.zeros(len(self.model.parts), device=self.device)
        for index, batch in enumerate(passes):
            for dropout in self.dropouts:
                dropout.seed = (self.recipe.seed * self.steps + number) * self.sampling.accumulate + index
                dropout.pairs = len(batch.labels)
            last = index == len(passes) - 1
            with self._gradients_shared(last):
                loss = self._parts(batch, pixels)
                parts += loss.detach()
                # DDP takes the mean over ranks; each has its part of the sum
                (loss.sum() * self.ranks.world).backward()
        parts = self.ranks.sum(parts)
        total = float(parts.sum())
        if not math.isfinite(total):
            raise self._non_finite(f"the loss is {total}", passes)
        if frozen:
            self.encoder.forget_gradients()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip or math.inf)
        if not bool(torch.isfinite(norm)):
            raise self._non_finite(f"the gradient's norm is {float(norm)}", passes)
        rate = self.recipe.rate_at(number, self.steps)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self._log(
            kind="step",
            epoch=self.progress.epoch,
            step=number,
            loss=total,
            **{name: float(part) for name, part in zip(self.model.parts, parts, strict=True)},
            rate=rate,
            gradient=float(norm),
        )
        return total

    def _parts(self, batch: Batch, pixels: Tensor) -> Tensor:
        """The parts of the loss of one pass, one for each of the network's outputs."""
        with self._precision():
            outputs = self.pairs(self._normalised(batch))
        return self.loss.parts([output.float() for output in outputs], batch.labels, pixels=pixels)

    def _normalised(self, batch: Batch) -> Tensor:
        images = (batch.images - self.mean) / self.std
        return images.masked_fill(~batch.valid, 0.0).contiguous(memory_format=torch.channels_last)

    def _precision(self) -> AbstractContextManager[None]:
        if self.recipe.optimizer.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _gradients_shared(self, last: bool) -> AbstractContextManager[None]:
        if isinstance(self.pairs, DistributedDataParallel) and not last:
            return self.pairs.no_sync()
        return nullcontext()

    def _end_epoch(self, losses: Sequence[float], *, waited: float, computed: float) -> None:
        trained = self.averaged.module if self.averaged is not None else self.model
        sweep = validation_sweep(
            trained,
            self.source,
            self.source.indices("val"),
            normalise=self._normalised,
            ranks=self.ranks,
            threads=self.run.loader_threads,
            batch=max(self.micro // self.ranks.world, 1),
        )
        cut, confusion = sweep.best()
        epoch = self.progress.epoch
        better = confusion.f1 > self.progress.best_f1 and self.model.prepared
        if better:
            self.progress.best_f1, self.progress.best_epoch = confusion.f1, epoch
            if self.ranks.leads:
                self.files.save_best({"model": trained.state_dict(), "epoch": epoch, "f1": confusion.f1})
        if self.run.on_epoch is not None and self.ranks.leads:
            self.run.on_epoch(trained, self._normalised, cut, self.device)
        attention = {
            name: float(value)
            for name, value in trained.state_dict().items()
            if name in ("head.sa.gamma", "head.sc.gamma")
        }
        self._log(
            kind="epoch",
            epoch=epoch,
            prepared=self.model.prepared,
            loss=float(np.mean(losses)) if losses else None,
            threshold=cut,
            precision=confusion.precision,
            recall=confusion.recall,
            f1=confusion.f1,
            accuracy=confusion.accuracy,
            eta=attention.get("head.sa.gamma"),
            gamma=attention.get("head.sc.gamma"),
            rate=self.recipe.rate_at((epoch + 1) * self.order.steps - 1, self.steps),
            device_share=computed / max(computed + waited, 1e-9),
            pairs_per_s=len(losses) * self.sampling.batch / max(computed + waited, 1e-9),
        )
        self.progress.epoch, self.progress.step = epoch + 1, 0
        waiting = epoch - self.progress.best_epoch
        if self.sampling.patience and self.model.prepared and waiting >= self.sampling.patience:
            self.progress.stopped = f"validation F1 has not risen for {waiting} epochs"
        self._save()

    def _non_finite(self, what: str, passes: Sequence[Batch]) -> NonFiniteLossError:
        samples = [index for batch in passes for index in batch.indices]
        return NonFiniteLossError(
            f"{what} in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}, samples "
            f"{', '.join(map(str, samples))}: training stopped before its weights were touched. Lower the rate or set "
            "clip; the last checkpoint is kept"
        )

    def _identity(self) -> str:
        return json.dumps(
            {"recipe": self.recipe.identity(), "dataset": self.run.data.digest, "ranks": self.ranks.world},
            sort_keys=True,
        )

    def _save(self) -> None:
        if self.ranks.leads:
            self.files.save(
                {
                    "model": self.model.state_dict(),
                    "averaged": self.averaged.state_dict() if self.averaged is not None else None,
                    "optimizer": self.optimizer.state_dict(),
                },
                self.progress,
            )
        self.saved = time.monotonic()

    def _resume(self) -> None:
        checkpoint = self.files.load()
        if checkpoint is not None:
            state, self.progress = checkpoint
            self.model.load_state_dict(state["model"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
        self.ranks.wait()
        if self.ranks.leads:
            self.files.cut_history()
        self.ranks.wait()

    def _log(self, **facts: Any) -> None:
        if self.ranks.leads:
            self.files.log(facts)
