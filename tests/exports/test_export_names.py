"""File names made from ids that anyone may have chosen."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amg
from amg.exports.names import Names
from tests.exports.pictures import blob, contents, make_mask, make_row, make_run

HOSTILE = [
    "../../x.jpg",
    "/etc/passwd.jpg",
    "a/../../b.jpg",
    "..",
    ".",
    "a//b.jpg",
    "./a.jpg",
    ".hidden.jpg",
    "a\\..\\b.jpg",
    "x" * 300 + ".jpg",
    "é" * 150 + ".jpg",
    "/".join(["d" * 100] * 30),
    "nul\x00byte.jpg",
    "new\nline.jpg",
    "shard-000.tar::a/b.jpg",
    "s3://bucket/a.jpg",
    "a.jpg",
    "a.png",
    "A.JPG",
    "a",
    "a/metadata.csv.jpg",
    "a.png/b.jpg",
    "a/0.png.jpg",
    "images.csv/x.jpg",
    "trailing. /x.jpg",
    "a~0123456789abcdef.jpg",
    "CON.jpg",
    " ",
    "?*|<>.jpg",
]


def _key(name):
    return unicodedata.normalize("NFC", name).casefold()


def _check(ids):
    names = Names(ids)
    found = [names(image_id) for image_id in ids]
    assert len({_key(name) for name in found}) == len(ids)
    for name in found:
        parts = name.split("/")
        assert not name.startswith("/")
        assert all(part and not part.startswith(".") for part in parts)
        assert all(len(part.encode()) <= 200 for part in parts)
        assert len(name.encode()) <= 1000
        assert not set(name) & set('\\:*?"<>|\x00\n')
    return found


def test_plain_paths_keep_their_names():
    assert _check(["a.jpg", "a/b.jpg", "c/d/e.tar.gz", "no suffix", "ü/日本.png", "/x/y.jpg"]) == [
        *("a", "a/b", "c/d/e.tar", "no suffix", "ü/日本", "x/y"),
    ]


def test_hostile_ids_become_names_of_their_own():
    _check(HOSTILE)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            st.text(alphabet="aA./~: \\", max_size=6),
            st.lists(st.sampled_from(["a", "A", "..", ".", "a.png", "b~"]), max_size=4).map(
                "/".join
            ),
        ),
        unique=True,
        max_size=30,
    )
)
def test_any_ids_become_names_of_their_own(ids):
    _check([image_id for image_id in ids if image_id])


def test_a_name_does_not_depend_on_the_order():
    names, turned = Names(HOSTILE), Names(HOSTILE[::-1])
    assert [names(image_id) for image_id in HOSTILE] == [turned(image_id) for image_id in HOSTILE]


def test_ids_that_share_a_name_are_told_apart():
    names = Names(["a.jpg", "A.png", "b.jpg"])
    assert names("b.jpg") == "b"
    assert names("a.jpg").startswith("a.jpg~")
    assert names("A.png").startswith("A.png~")


@pytest.mark.parametrize("to", ["sa1b", "yolo", "label-map", "panoptic", "png"])
def test_nothing_is_written_outside_and_nothing_over_another(tmp_path, to):
    ids = [image_id for image_id in HOSTILE if image_id.strip()]
    rows = [make_row(image_id, [make_mask(blob(i))]) for i, image_id in enumerate(ids)]
    run = make_run(tmp_path / "in" / "run", rows, images_per_shard=8)
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    out = tmp_path / "in" / "deep" / "out"
    report = amg.export(run, to, out)
    assert (report.images, report.refused) == (len(ids), 0)
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(out.parent)}
    assert outside == before
    ending = {"sa1b": ".json", "yolo": ".txt", "png": "/0.png"}.get(to, ".png")
    assert sum(name.endswith(ending) for name in contents(out)) == len(ids)
