"""Free memory, as Linux tells it of machines and containers that files here describe."""

import pytest
import torch

from amg.ops import memory
from amg.ops.memory import free_bytes

MEMINFO = "MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable: 2000 kB\n"


@pytest.fixture
def tell(tmp_path, monkeypatch):
    """What is free, if files below /proc and /sys/fs/cgroup have these texts."""
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "groups")

    def free(groups="0::/\n", meminfo=MEMINFO, **files):
        texts = {"proc/meminfo": meminfo, "proc/self/cgroup": groups, **files}
        for name, text in texts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return free_bytes(torch.device("cpu"))

    return free


def test_a_machine_can_give_what_is_available(tell):
    assert tell() == 2000 * 1024


def test_without_linux_it_is_all_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    assert free_bytes(torch.device("cpu")) > 2**28


@pytest.mark.parametrize(
    ("limit", "used", "cached", "expected"),
    [
        ("max", 5, 0, 2000 * 1024),
        (1000, 300, 0, 700),
        (1000, 3000, 0, 0),
        (1000, 900, 800, 900),  # a container whose page cache is full
        (1000, 900, 950, 1000),
    ],
)
def test_a_containers_limit_counts_without_its_page_cache(tell, limit, used, cached, expected):
    files = {
        "groups/memory.max": f"{limit}\n",
        "groups/memory.current": f"{used}\n",
        "groups/memory.stat": f"active_file 77\ninactive_file {cached}\nanon 3\n",
    }
    assert tell(**files) == expected


def test_the_tightest_of_nested_limits_counts(tell):
    files = {
        "groups/a/memory.max": "900\n",
        "groups/a/memory.current": "400\n",
        "groups/a/b/memory.max": "max\n",
        "groups/a/b/memory.high": "600\n",
        "groups/a/b/memory.current": "50\n",
    }
    assert tell("0::/a/b\n", **files) == 500


def test_version_1_is_read_too(tell):
    files = {
        "groups/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "groups/memory/pod/memory.limit_in_bytes": "1000\n",
        "groups/memory/pod/memory.usage_in_bytes": "700\n",
        "groups/memory/pod/memory.stat": "inactive_file 1\ntotal_inactive_file 200\n",
    }
    assert tell("9:memory:/pod\n3:cpu,cpuacct:/pod\n0::/pod\n", **files) == 500
    assert tell("9:memory:/not/seen/in/here\n", **files) == 2000 * 1024
