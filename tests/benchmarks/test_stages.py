import time
from types import SimpleNamespace

import pytest

from amg import GeneratorConfig, MaskGenerator
from amg.generate import filters, generator, regions, waiting
from benchmarks import stages
from benchmarks.stages import OTHER, STAGES, profile_stages

CONFIG = GeneratorConfig(
    points_per_side=4,
    points_per_batch=8,
    pred_iou_thresh=0.1,
    stability_score_thresh=0.1,
    min_mask_region_area=50,
)


@pytest.fixture(scope="module")
def ours(nano):
    return MaskGenerator(nano, CONFIG)


def test_every_stage_is_seen_and_their_sum_is_the_whole(ours, photos):
    started = time.perf_counter()
    seconds = profile_stages(ours.model, lambda: ours.generate(photos["coffee"]))
    whole_s = time.perf_counter() - started
    assert tuple(seconds) == (*STAGES, OTHER)
    assert all(seconds[stage] > 0 for stage in STAGES)
    assert seconds[OTHER] >= 0
    assert sum(seconds.values()) <= whole_s


def test_time_counts_for_the_stage_it_was_spent_in(ours, photos, monkeypatch):
    """By a clock that stands still but in the functions that are timed, and in the heartbeat."""
    clock = SimpleNamespace(seconds=0)
    monkeypatch.setattr(stages, "time", SimpleNamespace(perf_counter=lambda: clock.seconds))

    def taking(seconds, function):
        def slow(*args, **kwargs):
            clock.seconds += seconds
            return function(*args, **kwargs)

        return slow

    for owner, name, seconds in (
        (ours.model, "fit", 1),
        (ours.model, "collate", 3),
        (ours.model, "encode", 2),
        (filters, "measure_masks", 100),
        (waiting, "suppress_duplicates", 1000),
        (regions, "suppress_duplicates", 3000),
        (generator, "encode_masks", 10_000),
    ):
        monkeypatch.setattr(owner, name, taking(seconds, getattr(owner, name)))

    def decode(*args, of=ours.model.decode, **options):
        clock.seconds += 5
        for batch in of(*args, **options):
            clock.seconds += 10
            yield batch

    monkeypatch.setattr(ours.model, "decode", decode)
    slowed = MaskGenerator(ours.model, CONFIG, heartbeat=taking(100_000, lambda: None))
    assert profile_stages(ours.model, lambda: slowed.generate(photos["coffee"])) == {
        "encode": 6,
        "decode": 25,  # 16 points are two batches
        "measure": 200,
        "nms": 4000,
        "rle": 10_000,
        OTHER: 200_000,
    }


def test_nothing_stays_replaced_when_the_work_fails(ours, photos):
    places = [(filters, "measure_masks"), (regions, "suppress_duplicates")]
    before = [getattr(owner, name) for owner, name in places]
    results = []

    def fail_after_work():
        results.append(ours.generate(photos["cat"]).to_annotations())
        raise KeyError

    with pytest.raises(KeyError):
        profile_stages(ours.model, fail_after_work)
    assert [getattr(owner, name) for owner, name in places] == before
    assert "encode" not in vars(ours.model)
    assert results == [ours.generate(photos["cat"]).to_annotations()]
