"""Prompts find their images by id or name, and are put into their order on disk."""

import numpy as np
import pyarrow as pa
import pytest

from amg.errors import ConfigError
from amg.inputs.sources import ImageSource
from amg.prompts import columns, ordering
from amg.prompts.files import PromptSource
from amg.prompts.matching import NOWHERE, Matching, agrees
from pipelines.corpus.prompts import list_prompts, number_categories


class _Planned:
    def __init__(self, uris):
        self.images = [
            ImageSource(image_id or uri.removeprefix("/data/"), uri, uri.encode())
            for image_id, uri in uris
        ]

    def batches(self):
        for i in range(0, len(self.images), 3):
            yield self.images[i : i + 3]

    def read(self, rows):
        return self.images[rows.start : rows.stop]


PLANNED = _Planned(
    [
        (None, "/data/val/000000000139.jpg"),
        (None, "/data/train/1.jpg"),
        (None, "/data/val/1.jpg"),
        ("an id", "/data/x.tar::b/two.png"),
        (None, "/data/three.v2.jpg"),
    ]
)


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("val/1.jpg", 2),
        ("train/1.jpg", 1),
        ("/elsewhere/val/1.jpg", "val/1.jpg"),
        ("data/val/1.jpg", 2),
        ("val/1", 2),
        ("an id", 3),
        ("two.png", 3),
        ("two", 3),
        ("two.jpg", 3),
        ("b/two.jpg", 3),
        ("c/two.jpg", NOWHERE),
        ("139", 0),
        ("000000000139", 0),
        ("139.png", 0),
        ("test/139.jpg", NOWHERE),
        ("three.v2", 4),
        ("three", NOWHERE),
        ("", NOWHERE),
        ("1.jpg", "train/1.jpg' or 'val/1.jpg"),
    ],
)
def test_keys_find_their_images(key, row):
    def find():
        (found,) = Matching(PLANNED).rows_of(pa.array([key])).tolist()
        return found if found != NOWHERE and agrees(key, PLANNED.images[found]) else NOWHERE

    if isinstance(row, str):
        with pytest.raises(ConfigError, match=row):
            find()
    else:
        assert find() == row


def _source(keys, categories=None):
    prompts = columns.PromptColumns()
    for i, key in enumerate(keys):
        prompts.add(key, str(i), [0, 0, i + 1, 1], category=(categories or {}).get(i))
    batch = prompts.take()
    return PromptSource(lambda: (batch.slice(i, 7) for i in range(0, len(keys), 7)))


def test_prompts_are_ordered_on_disk(monkeypatch):
    monkeypatch.setattr(ordering, "_BUFFER_BYTES", 500)
    monkeypatch.setattr(ordering, "_CHUNK", 10)
    planned = _Planned([(f"{i}.jpg", f"/data/{i}.jpg") for i in range(40)])
    places = np.random.default_rng(0).integers(0, 30, 200).tolist()
    places += [17] * 25  # more than a chunk holds
    chunks = []
    listing = list_prompts(_source([f"{i}.jpg" for i in places]), planned, 40, chunks.append)
    assert (listing.n_prompts, listing.n_images, listing.n_strangers) == (225, len({*places}), 0)
    assert len(chunks) > 10
    rows = pa.concat_tables(chunks).to_pylist()
    expected = sorted((row, i) for i, row in enumerate(places))
    assert [(values["row"], int(values["prompt_id"])) for values in rows] == expected
    assert all(values["box"][2] == int(values["prompt_id"]) + 1 for values in rows)


def test_two_names_of_one_image_are_refused():
    with pytest.raises(ConfigError, match=r"'two(\.png)?' and .* both mean the image 'an id'"):
        list_prompts(_source(["two.png", "139", "two"]), PLANNED, 5)


def test_prompts_of_other_folders_are_counted():
    keys = ["test/139.jpg", "139.jpg", "c/two.jpg", "nothing"]
    listing = list_prompts(_source(keys), PLANNED, 5)
    assert (listing.n_prompts, listing.n_strangers) == (1, 3)
    assert sorted(listing.strangers) == ["c/two.jpg", "nothing", "test/139.jpg"]


def test_no_prompts_are_refused():
    with pytest.raises(ConfigError, match="there are none"):
        list_prompts(_source([]), PLANNED, 5)


def test_categories_have_numbers():
    listing = list_prompts(_source(["two", "139"], {1: "cat"}), PLANNED, 5)
    assert (listing.categories, listing.has_uncategorised) == ({"cat": 1}, True)
    assert number_categories({"b", "a"}, {"z": 7, "y": 0}) == {"z": 7, "y": 0, "a": 8, "b": 9}
    assert number_categories({"18", "3"}, {}) == {"3": 3, "18": 18}
    assert number_categories({"18", "x"}, {}) == {"18": 1, "x": 2}
    assert number_categories({"7"}, {"dog": 7}) == {"dog": 7, "7": 8}
