"""The log of events: it is read as it was written, and says what a run's time went into."""

import json

import pytest

from amg.runs.events import EventLog, RunTimes, read_events, read_times


def _line(time, session, event, **values):
    return json.dumps({"time": time, "session": session, "event": event, **values})


LINES = [
    _line(100.0, "a", "started"),
    _line(103.0, "a", "worker_ready", worker=0),
    _line(104.0, "a", "worker_ready", worker=1),
    _line(110.0, "a", "committed", images=30),
    _line(105.0, "b", "started"),
    _line(115.0, "b", "committed", images=10),
    _line(200.0, "c", "started"),
    _line(203.0, "c", "worker_ready", worker=0),
    _line(205.0, "c", "committed", images=20),
]


def test_sessions_beside_each_other_count_their_time_once(storage):
    storage.write("events/0000000a-00000.jsonl", "\n".join(LINES[:4]).encode())
    storage.write("events/0000000a-00001.jsonl", "\n".join(LINES[4:]).encode())
    assert read_times(storage) == RunTimes(100.0, 205.0, 20.0, 60, 3)
    assert read_times(storage).images_per_s == 3.0


def test_what_is_written_is_read(storage):
    storage.write("plan.json", b"")
    for n in (1, 2):
        log = EventLog(storage)
        log.log("started", shards=n)
        log.log("ended", failed={"3": "why"})
        log.flush()
    events = list(read_events(storage))
    assert sorted(event.get("shards", 0) for event in events) == [0, 0, 1, 2]
    assert len({event["session"] for event in events}) == 2
    assert {event["event"]: event.get("failed") for event in events}["ended"] == {"3": "why"}


def test_a_local_log_is_one_file(storage):
    storage.write("events.jsonl", "\n".join(LINES).encode())
    assert read_times(storage).images == 60
    assert len(list(read_events(storage))) == len(LINES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"{",
        b"null\n[]\n3\n{}\n",
        b'{"time": "x", "session": "a", "event": "ended"}',
        b"\xff\xfe\n",
    ],
)
def test_lines_that_are_no_events_are_left_out(storage, data):
    storage.write("events.jsonl", data)
    assert read_times(storage) == RunTimes()
    assert read_times(storage).images_per_s is None
    storage.write("events.jsonl", data + b"\n" + LINES[0].encode() + b"\n" + LINES[3].encode()[:-4])
    assert read_times(storage) == RunTimes(100.0, 100.0, 0.0, 0, 0)


def test_no_log_says_nothing(storage):
    assert read_times(storage) == RunTimes()
