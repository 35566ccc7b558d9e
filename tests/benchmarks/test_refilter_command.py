from benchmarks import refilter
from benchmarks.ellipses import EllipseGenerator, ellipses


def test_every_mask_is_refiltered(monkeypatch, capsys):
    monkeypatch.setattr(refilter, "WAYS", {"areas": {"min_area": 10**6}})
    refilter.main(images=3, workers=1)
    said = capsys.readouterr().out
    assert said.startswith("3 images, 300 masks")
    assert "0 masks left" in said


def test_images_get_scenes_in_turn():
    generator = EllipseGenerator(2)
    results = generator.generate_batch([None] * 60)
    assert results[50].masks == results[0].masks == ellipses(2, 0)
    assert results[1].masks != results[0].masks
