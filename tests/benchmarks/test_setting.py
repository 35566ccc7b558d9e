import numpy as np
import torch

from benchmarks import setting
from benchmarks.memory import forget_peak, peak_mb


def test_overrides_of_a_key_replace_each_other():
    assert setting.complete(None) == ("generator.points_per_side=32",)
    assert setting.complete(["a.b=1", "generator.points_per_side=4", "a.b=2"]) == (
        "generator.points_per_side=4",
        "a.b=2",
    )


def test_a_machine_without_a_gpu():
    machine = setting.this_machine("cpu")
    assert machine.gpu is None
    assert machine.cpu
    assert machine.cores >= machine.threads == torch.get_num_threads() >= 1
    assert machine.memory_gb > 0.5


def test_versions_of_what_is_there():
    found = setting.versions(["typer", "no-such-package"])
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert "typer" in found
    assert "no-such-package" not in found


def test_no_commit_outside_git(tmp_path, monkeypatch):
    monkeypatch.setattr(setting, "_ROOT", tmp_path)
    assert setting.commit() == "unknown"


def test_the_peak_is_that_since_it_was_forgotten():
    device = torch.device("cpu")
    forget_peak(device)
    before = peak_mb(device)
    np.ones(25_000_000)  # 200 MB
    during = peak_mb(device)
    assert during >= before + 150
    forget_peak(device)
    assert peak_mb(device) <= during - 150
