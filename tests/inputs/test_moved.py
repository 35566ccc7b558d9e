"""Places that have moved."""

import pytest

from amg import ConfigError
from amg.inputs.moved import (
    Move,
    parse_moves,
    planned_location,
    present_location,
    with_planned_names,
)
from amg.inputs.sources import ImageSource


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("/a=/b", "/a", "/b"),
        ("/a/=/b/", "/a", "/b"),
        ("/date=2020/x=/new/date=2020", "/date=2020/x", "/new/date=2020"),
        ("s3://a=http://b", "s3://a", "http://b"),
        ("file:///a%20b=/c", "/a b", "/c"),
    ],
)
def test_moves_are_two_places(text, old, new):
    assert parse_moves([text]) == (Move(old, new),)


@pytest.mark.parametrize("text", ["/a", "=/b", "/a=", ""])
def test_what_is_no_move_is_refused(text):
    with pytest.raises(ConfigError, match="OLD=NEW"):
        parse_moves([text])


def test_relative_places_are_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_moves(["a=b"]) == (Move(f"{tmp_path}/a", f"{tmp_path}/b"),)


@pytest.mark.parametrize(
    ("move", "named", "planned", "present"),
    [
        # Named by the old place, as in a list that was not changed, or by the new one.
        ("/old=/new", "/old/x.jpg", "/old/x.jpg", "/new/x.jpg"),
        ("/old=/new", "/new/x.jpg", "/old/x.jpg", "/new/x.jpg"),
        ("/old=/new", "/older/x.jpg", "/older/x.jpg", "/older/x.jpg"),
        ("/old=/new", "/old", "/old", "/new"),
        ("/=/new", "/x.jpg", "/x.jpg", "/new/x.jpg"),
        ("/=/new", "/new/x.jpg", "/x.jpg", "/new/x.jpg"),
        ("/old/deep=/old", "/old/x.jpg", "/old/deep/x.jpg", "/old/x.jpg"),
        ("/old/deep=/old", "/old/deep/x.jpg", "/old/deep/x.jpg", "/old/x.jpg"),
        ("http://a=s3://b", "s3://b/x.jpg", "http://a/x.jpg", "s3://b/x.jpg"),
        ("http://a=http://u:p@b", "http://a/x?s=1", "http://a/x?s=1", "http://u:p@b/x?s=1"),
        ("http://a=http://b", "http://k:p@b/x?s=1", "http://a/x", "http://k:p@b/x?s=1"),
    ],
)
def test_where_things_were_and_are(move, named, planned, present):
    moves = parse_moves([move])
    assert planned_location(named, moves) == planned
    assert present_location(named, moves) == present


def test_an_id_that_is_an_address_moves_with_it():
    moves = parse_moves(["/old=/new"])
    listed = ImageSource("/new/x.jpg", "/new/x.jpg", b"/new/x.jpg")
    assert with_planned_names(listed, moves) == ImageSource(
        "/old/x.jpg", "/old/x.jpg", b"/new/x.jpg"
    )
    member = ImageSource("a.tar::x.jpg", "/new/a.tar::x.jpg", b"/new/a.tar", 512, 9)
    assert with_planned_names(member, moves).uri == "/old/a.tar::x.jpg"
    assert with_planned_names(member, moves).image_id == "a.tar::x.jpg"
