"""Where the blocks are computed: what a user may ask."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from flows.run.fields import Cli, Frozen

_SIZE = Cli(metavar="SIZE")


class ClusterConfig(Frozen):
    """Where the blocks are computed."""

    kind: Annotated[
        str,
        Cli(name="cluster", metavar="KIND"),
        Field(
            title="Cluster",
            description="`local`: CPU processes on this machine. `cuda`: one worker a GPU of this machine (dask-cuda). "
            "`tls://host:port`, or in a closed network `tcp://` or `ucx://`: a scheduler that is already running. "
            "`/shared/scheduler.json`: the same, by the file in which the scheduler left its address.",
            pattern=r"^(local|cuda|(tcp|tls|ucx)://\S+|.*\.json)$",
        ),
    ] = "local"
    workers: Annotated[
        int | None,
        Field(
            ge=1,
            description="Worker processes; default: one a core up to four cores, then one for four cores. "
            "Of a running scheduler: how many to wait for before the first block; all it has are used.",
        ),
    ] = None
    lanes: Annotated[
        int | None,
        Field(
            ge=1,
            description="Blocks that compute at the same time in one worker; default: the worker's share of the cores, "
            "or one on a GPU.",
        ),
    ] = None
    in_flight: Annotated[int, Field(ge=1, description="Blocks submitted at a time, for each worker's lane.")] = 3
    certificates: Annotated[
        Path | None,
        Cli(metavar="DIR", envvar="DASNET_CERTIFICATES"),
        Field(description="For `tls://`: folder with `ca.pem`, `client.pem`, `client-key.pem`, of `dasnet certs`."),
    ] = None
    memory_limit: Annotated[
        str | None,
        _SIZE,
        Field(
            description="Memory of one worker that is started here, for example `8GB`: Dask restarts a worker that "
            "comes near it; default: its share of the machine.",
        ),
    ] = None
    worker_hours: Annotated[
        float,
        Field(
            gt=0,
            description="Hours after which a worker that is started here is replaced by a fresh one, give or take a "
            "tenth, whatever it has leaked by then; its blocks in flight are computed again.",
        ),
    ] = 6.0
    protocol: Annotated[
        Literal["tcp", "ucx"], Field(description="Between `cuda` workers; `ucx` needs distributed-ucxx.")
    ] = "tcp"
    rmm_pool: Annotated[
        str | None,
        _SIZE,
        Field(
            description="With `cuda`: device memory that RMM takes at once and torch is made to use, for example "
            "`20GB`; needs rmm; default: torch's own allocator.",
        ),
    ] = None

    @field_validator("memory_limit", "rmm_pool")
    @classmethod
    def _bytes(cls, text: str | None) -> str | None:
        # what Dask takes for a size; Dask itself is not imported to plan and to refuse
        size = re.fullmatch(
            r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?([kmgtp]i?)?b?", (text or "").replace(" ", ""), re.IGNORECASE
        )
        if text is not None and (size is None or float(size[1]) == 0):
            raise ValueError(f"{text!r} is no size in bytes, as for example 8GB or 512MiB")
        return text

    @model_validator(mode="after")
    def _nothing_that_would_be_ignored(self) -> ClusterConfig:
        """Refuse settings that the chosen cluster ignores: they would look as if they did something."""
        reasons = {
            "certificates": (not self.is_running and "its workers are on this machine, on loopback")
            or (self.kind.startswith(("tcp://", "ucx://")) and "that connection is open to read; use tls://host:port"),
            "memory_limit": self.is_running and "the workers of a running scheduler have their own",
            "worker_hours": self.is_running and "the workers of a running scheduler have their own",
            "protocol": self.kind != "cuda" and "only `cuda` workers can be told",
            "rmm_pool": self.kind != "cuda" and "only `cuda` workers can be told",
        }
        for name, reason in reasons.items():
            if reason and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect on cluster {self.kind}: {reason}")
        return self

    @property
    def is_running(self) -> bool:
        """Whether somebody else started the cluster."""
        return self.kind not in ("local", "cuda")


AnyCluster = Annotated[ClusterConfig, Cli(section="Cluster", settings="cluster-set")]
