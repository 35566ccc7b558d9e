"""What is learned from attempts that fail, without any process."""

from amg.inputs.sources import ImageSource
from pipelines.corpus.messages import Progress
from pipelines.corpus.schedule import Schedule

SOURCES = [ImageSource(f"{i}.jpg", f"{i}.jpg", b"x") for i in range(16)]


def _begin(schedule):
    shard = schedule.next_shard()
    assert shard is not None
    return schedule.begin(shard, SOURCES)


def _lose(schedule, *in_flight):
    """One attempt that dies with these images in flight."""
    task = _begin(schedule)
    schedule.lose(task.attempt, Progress(task.attempt, in_flight), "gone")
    return task


def test_shards_are_given_once_and_in_order():
    schedule = Schedule(range(3), 5, 2)
    tasks = [_begin(schedule) for _ in range(3)]
    assert [task.shard for task in tasks] == [0, 1, 2]
    assert schedule.next_shard() is None
    assert not schedule.is_finished
    for task in tasks:
        schedule.succeed(task.attempt)
    assert schedule.is_finished
    assert schedule.failed == {}


def test_an_image_that_kills_two_workers_alone_is_condemned():
    schedule = Schedule([0], 5, 2)
    assert _lose(schedule, 3, 4, 5).alone == ()
    assert _lose(schedule, 4).alone == (3, 4, 5)
    _lose(schedule, 4)
    task = _begin(schedule)
    assert task.alone == (3, 5)
    assert list(task.condemned) == [4]
    assert "gone" in task.condemned[4]


def test_images_that_survive_alone_are_not_condemned_by_others():
    schedule = Schedule([0], 5, 2)
    for _ in range(2):
        _lose(schedule, 3, 4, 5)
        _lose(schedule, 9)
    task = _begin(schedule)
    assert list(task.condemned) == [9]


def test_a_shard_with_many_poison_images_is_not_given_up():
    schedule = Schedule([0], 2, 2)
    for poison in range(10):
        _lose(schedule, *range(poison, 12))
        _lose(schedule, poison)
        _lose(schedule, poison)
    task = _begin(schedule)
    assert sorted(task.condemned) == list(range(10))


def test_a_shard_that_dies_for_no_image_is_given_up_in_the_end():
    schedule = Schedule([0], 3, 2)
    tasks = [_lose(schedule) for _ in range(3)]
    assert [task.one_by_one for task in tasks] == [False, False, True]
    assert schedule.failed == {0: "gone"}
    assert schedule.is_finished


def test_errors_of_the_storage_are_retried_and_blame_nobody():
    schedule = Schedule([0], 2, 2)
    for _ in range(2):
        task = _begin(schedule)
        assert task.alone == ()
        schedule.fail(task.attempt, "disk full")
    assert schedule.failed == {0: "disk full"}


def test_what_is_put_back_comes_first_again():
    schedule = Schedule(range(3), 5, 2)
    first, second = _begin(schedule), _begin(schedule)
    schedule.put_back(second.attempt)
    schedule.put_back(first.attempt)
    assert [_begin(schedule).shard for _ in range(3)] == [0, 1, 2]


def test_attempts_have_names_of_their_own_and_late_results_are_not_known():
    schedule = Schedule([0], 5, 2)
    lost = _lose(schedule, 1)
    again = _begin(schedule)
    assert lost.attempt != again.attempt
    assert schedule.shard_of(lost.attempt) is None
    assert schedule.shard_of(again.attempt) == 0


def test_attempts_that_an_earlier_driver_lost_count():
    unseen = [Progress("a"), Progress("b"), Progress("e")]
    lost = {0: unseen, 1: [Progress("c", (2,)), Progress("d", (2,))]}
    schedule = Schedule([0, 1, 2], 5, 2, lost)
    careful, condemned, fresh = (_begin(schedule) for _ in range(3))
    assert careful.one_by_one
    assert careful.condemned == {}
    assert list(condemned.condemned) == [2]
    assert not fresh.one_by_one
