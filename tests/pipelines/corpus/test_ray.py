"""The same runs with workers as Ray actors, on one node and on two."""

import json
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from amg import ConfigError
from amg.config import EngineConfig, load_config
from amg.runs.results import open_run
from pipelines.corpus.run import Run
from tests.pipelines.helpers import (
    QUICK,
    contents,
    make_folder,
    make_run,
    start_driver,
    wait_until,
)
from tests.pipelines.stub import (
    BROKEN,
    GATE_VARIABLE,
    HANG,
    KILL,
    RAISE,
    START_VARIABLE,
    make_embedding_stub,
    make_stub,
)

ray = pytest.importorskip("ray")
from ray.exceptions import RayTaskError  # noqa: E402 - after the check

from pipelines.corpus.engines.ray import _reason  # noqa: E402
from pipelines.corpus.engines.ray_cluster import connect  # noqa: E402

pytestmark = pytest.mark.usefixtures("forked_workers")
RAY = "engine.name=ray"


@pytest.fixture(scope="module")
def cluster():
    """A head without room for workers: every run of this module joins it."""
    from ray.cluster_utils import Cluster

    # Ray would notice a dead node after some ten seconds more.
    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    config = {"health_check_initial_delay_ms": 500, **soon}
    head = {
        "num_cpus": 0,
        "include_dashboard": False,
        "dashboard_agent_listen_port": 0,  # any: another session may be here
        "_system_config": config,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def room(cluster):
    """A node for two workers, the same for all tests."""
    if not cluster.worker_nodes:
        cluster.add_node(num_cpus=2)
    wait_until(lambda: ray.cluster_resources().get("CPU") == 2)


@pytest.fixture(scope="module")
def expected(forked_workers, tmp_path_factory):
    """A folder of images, and what the local engine makes of them."""
    folder = make_folder(tmp_path_factory.mktemp("ray") / "in", 40)
    out = folder.parent / "local"
    make_run(folder, out).execute()
    return folder, contents(out)


def test_a_node_where_no_worker_starts_is_left_out(
    cluster, expected, tmp_path, monkeypatch, caplog
):
    folder, rows = expected
    out, left_out = tmp_path / "out", tmp_path / "left-out"
    monkeypatch.setattr("pipelines.corpus.staffing._FIRST_REST_S", 0.01)
    nodes = []
    for variable, value in ((START_VARIABLE, BROKEN), (GATE_VARIABLE, f"0:{left_out}")):
        with monkeypatch.context() as patched:
            patched.setenv(variable, value)
            nodes.append(cluster.add_node(num_cpus=1))

    def watch(_):
        if "node_left_out" in (out / "events.jsonl").read_text():
            left_out.touch()

    with caplog.at_level("INFO", "pipelines.corpus.engines"):
        report = make_run(folder, out, RAY, "engine.max_workers=2").execute(watch)
    assert report.is_complete
    assert contents(out) == rows
    assert f"joined the Ray cluster at {cluster.address}: 2 CPUs, 0 GPUs" in caplog.text
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    lost = [event for event in events if event["event"] == "worker_lost"]
    assert [e["reason"] for e in lost] == [
        "RuntimeError: a bug that this start finds, in two lines"
    ] * 3
    assert len({event["node"] for event in lost}) == 1
    assert "in make_stub" in (out / lost[0]["traceback"]).read_text()
    for node in nodes:
        cluster.remove_node(node, allow_graceful=False)


def test_a_node_that_dies_in_the_middle_costs_only_time(cluster, expected, tmp_path, monkeypatch):
    """The second node comes when the first is gone: workers join as resources appear."""
    folder, rows = expected
    two_are_there = tmp_path / "two"
    monkeypatch.setenv(GATE_VARIABLE, f"12:{tmp_path / 'never'}")
    first = cluster.add_node(num_cpus=1)
    monkeypatch.setenv(GATE_VARIABLE, f"0:{two_are_there}")
    states, reports = [], []

    def watch(state):
        states.append(state)
        if state.n_workers == 2:
            two_are_there.touch()

    run = make_run(folder, tmp_path / "out", RAY, "engine.max_workers=2")
    driver = threading.Thread(target=lambda: reports.append(run.execute(watch)), daemon=True)
    driver.start()  # nodes must be started by the main thread
    wait_until(lambda: not driver.is_alive() or (states and states[-1].done.images >= 10))
    cluster.remove_node(first, allow_graceful=False)
    cluster.add_node(num_cpus=2)
    driver.join(timeout=240)
    assert not driver.is_alive()
    assert reports[0].is_complete
    assert contents(tmp_path / "out") == rows
    assert '"worker_lost"' in (tmp_path / "out" / "events.jsonl").read_text()
    assert max(state.n_workers for state in states) == 2


def test_ray_gives_the_rows_of_the_local_engine_and_leaves_nothing(room, expected, tmp_path):
    folder, rows = expected
    states = []
    report = make_run(folder, tmp_path / "out", RAY).execute(states.append)
    assert report.is_complete
    assert contents(tmp_path / "out") == rows
    assert states[-1].done.images == 40
    wait_until(lambda: ray.available_resources().get("CPU") == 2 and _actor_processes() == [])


def test_embeddings_take_the_place_of_images_under_ray_too(room, expected, tmp_path):
    folder, rows = expected
    config = load_config(None, [*QUICK, RAY])
    kept, out = tmp_path / "kept", tmp_path / "out"
    Run([folder], kept, config, embed="float16", make_generator=make_embedding_stub).execute()
    assert Run([], out, config, embeddings=kept, make_generator=make_stub).execute().is_complete
    assert contents(out) == rows


def _actor_processes():
    """Workers and mailboxes of ours: Ray names its processes after their classes."""
    session = Path(ray._private.worker._global_node.get_session_dir_path()).name.encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            title = (process / "cmdline").read_bytes()
            if b"ray::_Actor" in title or b"ray::_Mailbox" in title:
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if session in Path(f"/proc/{parent}/cmdline").read_bytes():
                    found.append(title)
    return found


def test_images_that_kill_hang_and_fail_are_rows(room, tmp_path, caplog):
    bad = {3: KILL, 4: RAISE, 11: HANG}
    folder = make_folder(tmp_path / "in", 16, bad)
    report = make_run(folder, tmp_path / "out", RAY, "run.stall_timeout_s=4").execute()
    assert report.is_complete
    found = {i: row[1] for i, row in enumerate(contents(tmp_path / "out")) if row[1] != "ok"}
    assert found == dict.fromkeys(bad, "crashed")
    assert "004.png: crashed: RuntimeError: a bug that this image finds" in caplog.text
    assert "its worker process has died" in caplog.text


def test_real_photos_have_the_same_rows_under_both_engines(room, photos, tmp_path):
    from PIL import Image

    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("cat", "coins"):
        Image.fromarray(photos[name]).resize((160, 120)).save(folder / f"{name}.png")
    options = ["generator.points_per_side=4", "model.device=cpu", "model.imgsz=224"]
    for engine in ("ray", "local"):
        config = load_config(None, [*options, f"engine.name={engine}"])
        assert Run([folder], tmp_path / engine, config).execute().is_complete
    rows, others = (list(open_run(tmp_path / engine).rows()) for engine in ("ray", "local"))
    assert [(row.image_id, row.sha256, row.status) for row in rows] == [
        (row.image_id, row.sha256, row.status) for row in others
    ]
    masks, twins = ([mask for row in found for mask in row.masks] for found in (rows, others))
    assert len(masks) > 3
    assert [mask.rle for mask in masks] == [mask.rle for mask in twins]
    # Ray gives a worker one thread, and we may give all cores: sums differ in their last bits.
    for mask, twin in zip(masks, twins, strict=True):
        assert mask.predicted_iou == pytest.approx(twin.predicted_iou, abs=1e-5)


def test_an_address_without_a_cluster_is_an_error(tmp_path, expected, monkeypatch):
    monkeypatch.setattr("pipelines.corpus.engines.ray.ray.is_initialized", lambda: False)
    run = make_run(expected[0], tmp_path / "out", RAY, "engine.address=127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1"):
        run.execute()


@pytest.mark.parametrize(
    ("variable", "address", "joined"),
    [
        ("127.0.0.1:6379", None, None),  # as within a job: where to is for Ray to find out
        ("127.0.0.1:6379", "local", "local"),
        ("", "auto", "auto"),
        ("", "10.1.2.3:6379", "10.1.2.3:6379"),
        ("local", None, "local"),
    ],
)
def test_the_cluster_that_ray_knows_is_joined(monkeypatch, variable, address, joined):
    asked = []
    monkeypatch.setenv("RAY_ADDRESS", variable)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **options: asked.append((address, options)))
    was_there, ours = connect(EngineConfig(name="ray", address=address))
    ((given, options),) = asked
    assert given == joined
    assert ours
    assert was_there == (joined != "local")
    assert ("_node_ip_address" in options) == (joined == "local")


def test_a_task_that_ray_could_not_begin_says_why():
    cause = ModuleNotFoundError("No module named 'amg'")
    error = RayTaskError("begin", "Traceback ...", cause, proctitle="p", pid=1, ip="127.0.0.1")
    assert _reason(error.as_instanceof_cause()) == "ModuleNotFoundError: No module named 'amg'"


def test_a_signal_ends_a_run_under_ray_in_order(expected, tmp_path):
    """Ray takes the signals for itself when it starts."""
    folder, rows = expected
    out = tmp_path / "out"
    gate = tmp_path / "gate"
    one = [RAY, "engine.address=local", "engine.max_workers=1"]
    driver = start_driver(folder, out, *one, **{GATE_VARIABLE: f"10:{gate}"})
    wait_until(lambda: list((out / "commits").glob("*.json")) or driver.poll() is not None)
    driver.send_signal(signal.SIGTERM)
    gate.touch()
    assert driver.wait(timeout=120) == 4
    assert json.loads((out / "report.json").read_text())["stopped"] == "SIGTERM"
    assert list((out / "attempts").iterdir()) == []
    report = make_run(folder, out).execute()  # the local engine goes on
    assert report.is_complete
    assert 0 < report.session_images < 40
    assert contents(out) == rows
