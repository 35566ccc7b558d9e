from benchmarks import ellipses, refilter
from benchmarks.ellipses import EllipseGenerator, make_hundred_ellipses


def make_three_ellipses(config, heartbeat):
    """As workers import it: fewer, and sooner made, than the hundred that are measured."""
    return EllipseGenerator(3)


def test_every_mask_is_refiltered(monkeypatch, capsys):
    monkeypatch.setattr(refilter, "WAYS", {"areas": {"min_area": 10**6}})
    monkeypatch.setattr(refilter, "make_hundred_ellipses", make_three_ellipses)
    refilter.main(images=3, workers=1)
    said = capsys.readouterr().out
    assert said.startswith("3 images, 9 masks")
    assert "0 masks left" in said


def test_a_hundred_masks_an_image(monkeypatch):
    monkeypatch.setattr(ellipses, "N_SCENES", 1)
    (result,) = make_hundred_ellipses(None, None).generate_batch([None])
    assert len(result.masks) == 100


def test_images_get_scenes_in_turn():
    generator = EllipseGenerator(2)
    results = generator.generate_batch([None] * 60)
    assert results[50].masks == results[0].masks == ellipses.ellipses(2, 0)
    assert results[1].masks != results[0].masks
