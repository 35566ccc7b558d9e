"""Inputs whose addresses have secrets, or that have moved: the same run, with no secret in OUT."""

import hashlib
import http.server
import json
import threading
from functools import partial
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector

from amg import ImageError, RunError, open_run
from amg.config import load_config
from amg.runs.folder import require_plan
from amg.runs.planned import PlannedInputs
from amg.runs.spool import CompleteInputs
from amg.storage.stores import open_storage
from pipelines.corpus.listing import Job
from pipelines.corpus.plan import fingerprint, prepare
from pipelines.corpus.run import retry_failed
from tests.pipelines.helpers import QUICK, contents, make_folder, make_run
from tests.pipelines.stub import make_stub

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.usefixtures("forked_workers")
SHARDS = "run.images_per_shard=2"
N = 5


class _Signed(http.server.SimpleHTTPRequestHandler):
    """Gives files to those who sign with the server's word."""

    def do_GET(self):
        if parse_qs(urlsplit(self.path).query).get("sig") != [self.server.word]:
            self.send_error(403)
            return
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("signed") / "in", N)


@pytest.fixture(scope="module")
def expected(forked_workers, folder):
    """What a run of the folder commits, but for the ids."""
    make_run(folder, folder.parent / "plain", SHARDS).execute()
    return [row[1:] for row in contents(folder.parent / "plain")]


@pytest.fixture
def server(folder):
    handler = partial(_Signed, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served
        served.shutdown()


def _sign(server, path, word, n_images=N):
    """A list for this word, which the server takes from now on."""
    server.word = word
    at = f"127.0.0.1:{server.server_port}"
    lines = [f"http://me:hunter2@{at}/{i:03d}.png?sig={word}\n" for i in range(n_images)]
    path.write_text("".join(lines))
    return path


def _planned(out):
    inputs = PlannedInputs(open_storage(out))
    sources = inputs.read(range(require_plan(open_storage(out)).n_images))
    inputs.close()
    return sources


def _has(out, *secrets):
    """Which of these are in any file of a run, or in the rows of its tables."""
    rows = repr((_planned(out), list(open_run(out).rows()))).encode()
    data = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    return [secret for secret in secrets if secret.encode() in data + rows]


def test_a_list_signed_anew_is_the_same_run_and_no_secret_is_kept(server, tmp_path, expected):
    out, lines = tmp_path / "out", tmp_path / "list.txt"
    first = make_run(_sign(server, lines, "ONE"), out, SHARDS, slice_=(0, 2)).execute()
    assert (first.tally.failed, first.n_committed) == (0, 2)
    assert make_run(_sign(server, lines, "TWO"), out, SHARDS).execute().is_complete
    assert [row[1:] for row in contents(out)] == expected
    assert _has(out, "hunter2", "ONE", "TWO") == []
    assert require_plan(open_storage(out)).has_secrets
    first, *_ = open_run(out).rows()
    assert _planned(out)[0].path.decode() == first.image_id == first.uri
    with pytest.raises(ImageError, match="query, such as a signature, and needs it"):
        open_run(out).image(first)


def test_failed_images_of_signed_lists_take_the_list_again(server, tmp_path, expected):
    out, lines = tmp_path / "out", _sign(server, tmp_path / "list.txt", "ONE")
    server.word = "another"
    assert make_run(lines, out, SHARDS).execute().tally.failed == N
    assert _has(out, "hunter2", "ONE") == []
    with pytest.raises(RunError, match="a run does not keep: give its inputs again"):
        retry_failed(out, make_generator=make_stub)
    with pytest.raises(RunError, match=f"{N} images planned, 2 now"):
        lines = _sign(server, lines, "TWO", 2)
        retry_failed(out, inputs=[lines], make_generator=make_stub)
    lines = _sign(server, lines, "TWO")
    assert retry_failed(out, inputs=[lines], make_generator=make_stub).tally.failed == 0
    assert [row[1:] for row in contents(out)] == expected
    assert _has(out, "hunter2", "ONE", "TWO") == []


def test_only_sources_with_secrets_are_kept_beside_the_plan(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.corpus.duplicates.BATCH", 2)
    names = [f"/{i}.png" for i in range(4)] + ["http://h/4.png?s=1"]
    names += [f"/{i}.png" for i in range(5, 9)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    job = Job([str(tmp_path / "list.txt")], load_config(None, QUICK))
    with CompleteInputs() as complete:
        prepare(job, open_storage(tmp_path / "out"), complete)
        inputs = PlannedInputs(open_storage(tmp_path / "out"))
        planned = inputs.read(range(9))
        assert [source.withheld for source in planned] == [i == 4 for i in range(9)]
        for rows in (range(9), range(4), range(3, 6), range(4, 5), range(6, 9)):
            found = [source.path.decode() for source in complete.read(inputs, rows)]
            assert found == names[rows.start : rows.stop]
        inputs.close()


def _make_old(out, complete_paths):
    """Make of a plan what it was when complete URLs were kept and hashed."""
    digest = hashlib.sha256()
    table = pq.read_table(out / "inputs.parquet").drop_columns("withheld")
    for image_id, path in zip(table["image_id"].to_pylist(), complete_paths, strict=True):
        for part in (image_id.encode(), path, repr((None, None, None, None)).encode()):
            digest.update(b"%d " % len(part) + part)
    place = table.schema.get_field_index("path")
    paths = pa.array(complete_paths, pa.large_binary())
    table = table.set_column(place, table.schema.field(place), paths)
    pq.write_table(table, out / "inputs.parquet")
    plan = json.loads((out / "plan.json").read_text())
    del plan["has_secrets"]
    plan["identity"]["inputs_sha256"] = digest.hexdigest()
    plan["fingerprint"] = fingerprint(plan["identity"])
    (out / "plan.json").write_text(json.dumps(plan))


def test_a_plan_that_was_made_with_complete_addresses_is_gone_on_with(server, tmp_path, expected):
    out, lines = tmp_path / "out", _sign(server, tmp_path / "list.txt", "ONE")
    job = Job([str(lines)], load_config(None, [*QUICK, SHARDS]))
    prepare(job, open_storage(out))
    _make_old(out, [line.encode() for line in lines.read_text().split()])
    old = require_plan(open_storage(out))
    assert make_run(lines, out, SHARDS, slice_=(0, 2)).execute().tally.failed == 0
    _sign(server, lines, "TWO")
    assert make_run(lines, out, SHARDS).execute().is_complete
    assert [row[1:] for row in contents(out)] == expected
    assert require_plan(open_storage(out)) == old
    with pytest.raises(RunError, match="4 now, 1 gone"):
        make_run(_sign(server, lines, "TWO", 4), out, SHARDS).execute()


@pytest.mark.parametrize("named_by", ["folder", "new list", "old list"])
def test_inputs_that_have_moved_are_the_same(tmp_path, named_by):
    old, new, out = tmp_path / "old", tmp_path / "new", tmp_path / "out"
    make_folder(old, N)
    lists = {place: tmp_path / f"{place.name}.txt" for place in (old, new)}
    for place, path in lists.items():
        path.write_text("".join(f"{place}/{i:03d}.png\n" for i in range(N)))
    before = old if named_by == "folder" else lists[old]
    after = {"folder": new, "new list": lists[new], "old list": lists[old]}[named_by]
    make_run(before, out, SHARDS, slice_=(0, 2)).execute()
    old.rename(new)
    if named_by != "old list":
        with pytest.raises(RunError, match="holds another run"):
            make_run(after, out, SHARDS).execute()
    report = make_run(after, out, SHARDS, remap=[f"{old}={new}"]).execute()
    assert (report.is_complete, report.tally.failed) == (True, 0)
    assert [row.uri for row in open_run(out).rows()] == [f"{old}/{i:03d}.png" for i in range(N)]


def test_moved_inputs_are_named(folder, tmp_path):
    make_run(folder, tmp_path / "out", SHARDS, slice_=(0, 3)).execute()
    make_folder(tmp_path / "in", N)
    with pytest.raises(RunError, match=r"first '000\.png' at .* planned, .* now \(--remap OLD"):
        make_run(tmp_path / "in", tmp_path / "out", SHARDS).execute()


def test_moved_inputs_that_failed_are_done_again(tmp_path):
    folder = make_folder(tmp_path / "old", 3)
    (folder / "001.png").rename(tmp_path / "away.png")
    (folder / "001.png").write_bytes(b"")
    make_run(folder, tmp_path / "out", SHARDS).execute()
    (tmp_path / "away.png").rename(folder / "001.png")
    folder.rename(tmp_path / "new")
    moved = [f"{folder}={tmp_path / 'new'}"]
    inputs = [tmp_path / "new"]
    report = retry_failed(tmp_path / "out", inputs=inputs, remap=moved, make_generator=make_stub)
    assert report.tally.statuses == {"ok": 3}


def test_secrets_in_the_address_of_a_run_are_not_kept_in_it(s3, folder):
    out = f"s3://{s3}/run?sig=hunter2"
    assert make_run(folder, out, SHARDS).execute().is_complete
    files, root = open_storage(out).arrow()
    found = files.get_file_info(FileSelector(root, recursive=True))
    paths = [info.path for info in found if info.is_file]
    assert len(paths) > 10
    for path in paths:
        assert b"hunter2" not in files.open_input_file(path).readall(), path
