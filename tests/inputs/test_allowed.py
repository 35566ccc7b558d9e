"""What lists and tables may name."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg import ConfigError, ImageError
from amg.inputs.allowed import refusal, settle
from amg.inputs.reading import read_source
from amg.inputs.sources import list_sources

ROOT = "/data/x/../t/"  # a table's folder, as a user may have named it


@pytest.mark.parametrize(
    ("location", "allow", "may"),
    [
        # By default: in the table's folder, or remote.
        (ROOT + "a.jpg", None, True),
        (ROOT + "sub/../b..jpg", None, True),
        ("/data/t/a.jpg", None, True),
        (ROOT + "../a.jpg", None, False),
        (ROOT + "sub/../../u/a.jpg", None, False),
        ("/data/t2/a.jpg", None, False),
        ("/etc/passwd", None, False),
        ("//etc/passwd", None, False),
        ("s3://bucket/a.jpg", None, True),
        ("http://169.254.169.254/latest", None, True),
        ("reference://x", None, False),
        ("ZIP://a.jpg", None, False),
        # Told what to allow, nothing else.
        (ROOT + "a.jpg", ["/data"], True),
        (ROOT + "a.jpg", ["/images"], False),
        ("//images/a.jpg", ["/images/"], True),
        ("/images2/a.jpg", ["/images"], False),
        ("/images/../etc/passwd", ["/images"], False),
        ("/etc/passwd", ["/"], True),
        ("s3://b/a.jpg", ["/"], False),
        ("s3://b/a.jpg", ["s3://"], True),
        ("S3://b/a.jpg", ["s3://b"], True),
        ("s3://b2/a.jpg", ["s3://b"], False),
        ("s3://b/in/../other/a.jpg", ["s3://b/in"], False),
        ("s3://b/other/../in/a.jpg", ["s3://b/in"], False),
        ("http://cdn/a.jpg?sig=1", ["https://cdn", "http://CDN/"], True),
        ("http://me:pw@cdn/a.jpg", ["http://cdn"], True),
        ("http://cdn@evil/a.jpg", ["http://cdn"], False),
        ("http://cdn.evil/a.jpg", ["http://cdn"], False),
        ("http://evil#@cdn/a.jpg", ["http://cdn"], False),
        ("http://evil?@cdn/a.jpg", ["http://cdn"], False),
        ("http://cdn:8080/a.jpg", ["http://cdn"], False),
        ("http://cdn/in/%2e%2E/a.jpg", ["http://cdn/in"], False),
        ("http://cdn/in/..%2fother/a.jpg", ["http://cdn/in"], False),
        ("http://cdn/in/..\\a.jpg", ["http://cdn/in"], False),
        ("http://cdn/a%20b/c.jpg", ["http://cdn/a%20b"], True),
    ],
)
def test_places_that_a_table_may_name(location, allow, may):
    assert (refusal(location, settle(allow), ROOT) is None) == may


def test_a_list_may_name_anything_unless_told():
    assert refusal("/etc/passwd", None, None) is None
    assert "/etc/passwd" in refusal("/etc/passwd", ("/data",), None)


def test_prefixes_hold_in_other_folders_and_without_secrets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["x", "file:///a%20b", "", "http://u:pw@h/p?sig=1"]
    assert settle(given) == (f"{tmp_path}/x", "/a b", str(tmp_path), "http://h/p")


def test_a_table_that_names_what_it_may_not_is_refused_in_the_plan(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"uri": ["a.jpg", "../other/b.jpg"]}), path)
    sources = list_sources([path])
    assert next(sources).image_id == "a.jpg"
    with pytest.raises(ConfigError, match=r"t\.parquet': row 1: .*b\.jpg' .*--allow .*/other/$"):
        next(sources)
    assert len(list(list_sources([path], allow=settle([str(tmp_path.parent)])))) == 2
    (tmp_path / "list.txt").write_text("# two\na.jpg\n/etc/passwd\n")
    assert len(list(list_sources([tmp_path / "list.txt"]))) == 2
    with pytest.raises(ConfigError, match=r"list\.txt': line 3: '/etc/passwd' begins with no"):
        list(list_sources([tmp_path / "list.txt"], allow=settle([str(tmp_path)])))


def test_a_cell_that_names_what_it_may_not_is_not_read(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/in.jpg").write_bytes(b"in")
    (tmp_path / "out.jpg").write_bytes(b"out")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    paths = ["in.jpg", "../out.jpg", os.fspath(tmp_path / "out.jpg")]
    cells = pa.array([{"bytes": None, "path": path} for path in paths], kind)
    pq.write_table(pa.table({"image": cells}), tmp_path / "t/t.parquet")
    first, *others = list_sources([tmp_path / "t/t.parquet"])
    assert read_source(first) == b"in"
    for source in others:
        with pytest.raises(ImageError, match=r"--allow"):
            read_source(source)
        assert read_source(source, allow=settle([str(tmp_path)])) == b"out"
