"""The commands from beginning to end, with few points on a small photo."""

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from amg import ConfigError
from benchmarks import boxes, contender, gpu, peers, record, speed
from benchmarks.peers import choose_peers
from benchmarks.stages import OTHER, STAGES
from tests.benchmarks.runs import DEVICE_RUN
from tests.pool import PoolHere

FEW = ["--set", "generator.points_per_side=3", "--set", "generator.pred_iou_thresh=0.1"]
FEW += ["--set", "generator.stability_score_thresh=0.1"]
SMALL = ["--model", "mobile_sam", "--imgsz", 128, "--device", "cpu"]
SMALL += ["--short-side", 60, "--seconds", 0.01]


def run(main, *arguments):
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(
        app, [str(argument) for argument in arguments], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def photo(tmp_path, photos):
    path = tmp_path / "coins.png"
    Image.fromarray(photos["coins"]).resize((192, 151)).save(path)
    return path


class PoolOfOne(PoolHere):
    """What the pool's process would hold, none but its own calls see."""

    def __init__(self, workers, context):
        super().__init__(workers, context)
        assert workers == 1
        self._held = None

    def submit(self, *call):
        contender._held = self._held
        future = super().submit(*call)
        self._held = contender._held
        return future


def test_speed_of_all_peers(tmp_path, photo, monkeypatch):
    monkeypatch.setattr(contender, "ProcessPoolExecutor", PoolOfOne)
    monkeypatch.setattr(contender, "die_with_parent", lambda: None)
    monkeypatch.setattr(contender, "_held", None, raising=False)
    check_speed_of_all_peers(tmp_path, photo)


@pytest.mark.slow
def test_speed_of_all_peers_in_processes_of_their_own(tmp_path, photo):
    check_speed_of_all_peers(tmp_path, photo)


def check_speed_of_all_peers(tmp_path, photo):
    results = tmp_path / "results.jsonl"
    printed = run(speed.main, photo, *FEW, "--append", "--results", results)
    (measured,) = record.read(results)
    assert measured.peers == ("original", "transformers")
    assert measured.reference == "original"
    assert measured.setting.imgsz == 448
    assert measured.setting.overrides[0] == "generator.points_per_side=3"
    (row,) = measured.photos
    assert (row.photo, row.size_hw) == ("coins.png", (151, 192))
    assert row.parity.exact
    assert row.entries["ours"].n_masks == row.entries["original"].n_masks >= 3
    assert row.entries["original"].n_found == row.entries["original"].n_masks
    assert row.entries["transformers"].n_found > 0
    assert all(entry.seconds > 0 and entry.peak_mb > 100 for entry in row.entries.values())
    assert set(row.stages) == {*STAGES, OTHER}
    assert "| coins.png | 0.03 |" in printed
    assert "| geometric mean |" in printed
    assert "| decode |" in printed


def test_gpu_on_a_cpu_with_random_weights(tmp_path, photo):
    results = tmp_path / "results.jsonl"
    printed = run(gpu.main, photo, *FEW, *SMALL, "--append", "--results", results)
    (measured,) = record.read(results)
    assert measured.setting.weights_sha256 is None
    assert measured.image_hw == (60, 76)
    rates = measured.rates
    assert rates.images_per_s > 0
    assert rates.encoder_images_per_s > 0
    assert rates.decoder_prompts_per_s > 0
    assert rates.prompts_per_image == 9
    assert 0 < rates.weights_mb < rates.peak_mb
    assert rates.n_masks >= 1
    assert measured.parity["coins.png"].exact
    assert "mobile_sam with random weights" in printed
    assert "| whole generator, images |" in printed


def test_nothing_is_kept_unasked(tmp_path, photo, monkeypatch):
    """Of what was measured another time."""
    monkeypatch.setattr(gpu, "measure_rates", lambda *_: DEVICE_RUN.rates)
    monkeypatch.setattr(gpu, "profile_stages", lambda *_: DEVICE_RUN.stages)
    monkeypatch.setattr(gpu, "compare_with_cpu", lambda *_: DEVICE_RUN.parity)
    results = tmp_path / "results.jsonl"
    run(gpu.main, photo, *FEW, *SMALL, "--results", results)
    assert not results.exists()


def test_peers_by_name():
    assert [peer.name for peer in choose_peers("nano")] == ["original", "transformers"]
    assert [peer.name for peer in choose_peers("sam_vit_b", ["transformers"])] == ["transformers"]
    with pytest.raises(ConfigError, match="'sam3' is none of nano's: original, transformers"):
        choose_peers("nano", ["sam3"])


def test_a_peer_that_is_not_installed_is_refused(monkeypatch):
    def absent(package):
        raise peers.PackageNotFoundError(package)

    monkeypatch.setattr(peers, "version", absent)
    with pytest.raises(ConfigError, match="original needs segment-anything: pip install"):
        choose_peers("nano")


def test_boxes_beside_the_original(photo):
    printed = run(boxes.main, photo, "--boxes", 5, "--imgsz", 224)
    name, _, n_boxes, ours_s, theirs_s, _, _, alike = (
        printed.splitlines()[-1].strip("| ").split(" | ")
    )
    assert (name, n_boxes) == ("coins.png", "5")
    assert float(ours_s) > 0 and float(theirs_s) > 0
    assert alike.startswith("5, ")
