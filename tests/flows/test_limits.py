"""What a container may use, by control groups as kernels write them."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.run.homes import NO_HOME, name_a_home
from flows.run.limits import limits
from flows.run.proxies import pass_by_proxies

CORES = len(os.sched_getaffinity(0))
GIB = 1 << 30


def tree(root: Path, files: dict[str, str]) -> Path:
    """A fake `proc` and `sys` below a folder."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def test_without_control_groups_it_is_the_machine(tmp_path: Path) -> None:
    found = limits(tmp_path)
    assert found.cores == CORES and found.memory == psutil.virtual_memory().total
    assert 0 < found.free_memory <= found.memory


def test_version_2_the_tightest_of_a_group_and_those_above(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pods/one\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory",
            "sys/fs/cgroup/pods/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/pods/memory.max": "max\n",
            "sys/fs/cgroup/pods/one/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pods/one/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/pods/one/memory.high": f"{GIB // 2}\n",
            "sys/fs/cgroup/pods/one/memory.current": f"{GIB // 4}\n",
            "sys/fs/cgroup/pods/one/memory.stat": f"anon 1\ninactive_file {GIB // 8}\n",
        },
    )
    found = limits(root)
    assert (found.cores, found.memory, found.free_memory) == (1, GIB // 2, GIB // 2 - GIB // 8)


def test_version_2_from_inside_where_the_path_is_the_hosts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/docker-0123.scope\n",
            "sys/fs/cgroup/cpu.max": f"{CORES * 10}00000 100000\n",
            "sys/fs/cgroup/memory.max": f"{GIB // 4}\n",
            "sys/fs/cgroup/memory.current": f"{GIB}\n",
        },
    )
    found = limits(root)
    assert (found.cores, found.memory, found.free_memory) == (CORES, GIB // 4, 0)


def test_version_1_and_both_at_once(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/1\n2:cpu,cpuacct:/docker/1\n0::/\n",
            "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": f"{GIB // 4}",
            "sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes": f"{GIB // 8}",
            "sys/fs/cgroup/memory/docker/1/memory.stat": "cache 7\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/unified/cgroup.controllers": "",
        },
    )
    found = limits(root)
    assert (found.cores, found.memory, found.free_memory) == (1, GIB // 4, GIB // 8)
    (root / "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us").write_text("-1")
    assert limits(root).cores == CORES


@pytest.mark.parametrize("content", ["", "nonsense\n", "0::\n", "a:b\n"])
def test_what_cannot_be_read_limits_nothing(tmp_path: Path, content: str) -> None:
    root = tree(
        tmp_path, {"proc/self/cgroup": content, "sys/fs/cgroup/cpu.max": "none", "sys/fs/cgroup/memory.max": ""}
    )
    assert limits(root).cores == CORES and limits(root).memory == psutil.virtual_memory().total


def test_a_set_of_cores_counts() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from flows.run.machine import cores; print(cores())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "1"


def test_loopback_goes_past_proxies() -> None:
    for before, after in (
        ({}, {}),
        ({"no_proxy": "intranet"}, {"no_proxy": "intranet"}),
        ({"http_proxy": "p"}, "127.0.0.1,localhost,::1"),
        ({"ALL_PROXY": "p", "NO_PROXY": "intranet, localhost"}, "intranet,localhost,127.0.0.1,::1"),
        ({"HTTPS_PROXY": "p", "no_proxy": "*"}, "*"),
    ):
        environment = dict(before)
        pass_by_proxies(environment)
        expected = after if isinstance(after, dict) else {**before, "no_proxy": after, "NO_PROXY": after}
        assert environment == expected


def test_who_has_no_home_is_given_a_name_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"HOME": os.environ.get("HOME", "/root")}
    name_a_home(here)
    assert here["HOME"] != NO_HOME
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # no entry: a KeyError, as the system's own
    name_a_home(here)
    assert here["HOME"] == NO_HOME
