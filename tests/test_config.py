from pathlib import Path

import numpy as np
import pytest
import yaml
from segment_anything import SamAutomaticMaskGenerator

from amg import ConfigError, GeneratorConfig
from amg.config import Config, load_config
from amg.models.zoo.registry import MODELS

BEYOND_THE_ORIGINALS = {
    "object_score_thresh",
    "points_follow_aspect",
    "crop_skip_image",
    "mask_nms_thresh",
    "min_area",
    "max_area",
    "max_area_fraction",
    "find_parents",
    "parent_containment",
    "keep_candidates",
}


def test_defaults_are_the_originals():
    names = SamAutomaticMaskGenerator.__init__.__code__.co_varnames
    defaults = dict(zip(names[2:], SamAutomaticMaskGenerator.__init__.__defaults__, strict=False))
    ours = GeneratorConfig()
    shared = [name for name in defaults if name in GeneratorConfig.model_fields]
    assert len(shared) == 12
    shared.remove("points_per_batch")  # a matter of memory: ours follows the device's
    for name in shared:
        assert getattr(ours, name) == defaults[name], name


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"points_per_side": 0}, "points_per_side"),
        ({"points_per_side": 16.5}, "16.5"),
        ({"points_per_side": True}, "points_per_side"),
        ({"pred_iou_thresh": 1.5}, "pred_iou_thresh"),
        ({"pred_iou_thresh": float("nan")}, "pred_iou_thresh"),
        ({"crop_overlap_ratio": 1.0}, "crop_overlap_ratio"),
        ({"pred_iou_tresh": 0.5}, "did you mean pred_iou_thresh?"),
        ({"points_per_side": None}, "exactly one"),
        ({"points_per_side": 4, "point_grids": [[(0.5, 0.5)]]}, "exactly one"),
        ({"point_grids": [[(0.5, 0.5)]], "crop_n_layers": 1}, "2 grids are needed"),
        ({"point_grids": [[(0.5, 1.5)]]}, "point_grids.0.0.1"),
        ({"mask_threshold": float("inf")}, "mask_threshold"),
        ({"use_m2m": 1}, "use_m2m"),
        ({"multimask_output": "no"}, "multimask_output"),
        ({"crop_skip_image": True}, "crop_skip_image: nothing is left where crop_n_layers is 0"),
        ({"min_area": 10, "max_area": 9}, "max_area: 9 is less than min_area: 10"),
        ({"points_follow_aspect": True, "point_grids": [[(0.5, 0.5)]]}, "points_follow_aspect"),
        ({"max_area_fraction": 0.0}, "max_area_fraction"),
        ({"parent_containment": 0.0}, "parent_containment"),
        ({"mask_nms_thresh": 1.5}, "mask_nms_thresh"),
    ],
)
def test_bad_values_are_named(values, said):
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        GeneratorConfig(**values)


def test_point_grids_may_be_arrays_and_replace_points_per_side():
    config = GeneratorConfig(point_grids=[np.array([[0.5, 0.25]])])
    assert config.points_per_side is None
    assert config.point_grids == (((0.5, 0.25),),)


def test_model_defaults_give_way_to_explicit_values_only():
    defaults = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.8}
    resolved = GeneratorConfig(pred_iou_thresh=0.88).for_model(defaults)
    assert resolved.pred_iou_thresh == 0.88  # explicit, though equal to the default
    assert resolved.stability_score_thresh == 0.8
    assert resolved.box_nms_thresh == 0.7


def test_file_and_overrides(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("generator: {points_per_side: 8, crop_n_layers: 1}\nmodel: {name: sam_vit_b}\n")
    config = load_config(path, ["generator.points_per_side=16", "run.images_per_shard=7"])
    assert config.generator.points_per_side == 16
    assert config.generator.crop_n_layers == 1
    assert config.run.images_per_shard == 7
    assert config.model.name == "sam_vit_b"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("generator.points_per_sid=3", "generator.points_per_sid: no such key; did you mean"),
        ("generatr.points_per_side=3", "generatr: no such key; did you mean generator"),
        ("run.images_per_shard=0", "run.images_per_shard: .* got 0"),
        ("generator=3", "generator: .* got 3"),
        ("generator.points_per_side", "expected section.key=value"),
        ("generator.points_per_side=[", "not valid YAML"),
        ("model.imgsz=100", "model.imgsz"),
    ],
)
def test_bad_overrides_name_path_value_and_nearest_key(override, said):
    with pytest.raises(ConfigError, match=said):
        load_config(None, [override])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "!!python/object/apply:os.system ['true']"])
def test_bad_files_are_named(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(path)


def test_every_shipped_config_loads():
    from pathlib import Path

    files = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
    assert files
    for file in files:
        load_config(file)


def test_the_file_of_defaults_shows_every_default():
    path = Path(__file__).parents[1] / "configs" / "default.yaml"
    assert load_config(path) == Config()
    shown = yaml.safe_load(path.read_text())
    for section in ("model", "run", "engine"):  # the generator's depend on the model
        fields = type(getattr(Config(), section)).model_fields
        assert shown[section].keys() == fields.keys()
    assert shown["generator"].keys() == BEYOND_THE_ORIGINALS


def test_what_is_beyond_the_originals_is_off_and_of_no_model():
    names = SamAutomaticMaskGenerator.__init__.__code__.co_varnames
    assert not BEYOND_THE_ORIGINALS & {*names}
    for spec in MODELS.values():
        assert not BEYOND_THE_ORIGINALS & spec.generator_defaults.keys()
    off = GeneratorConfig()
    assert not (off.points_follow_aspect or off.crop_skip_image or off.find_parents)
    assert not (off.keep_candidates or off.min_area or off.max_area or off.object_score_thresh)
    assert off.mask_nms_thresh == off.max_area_fraction == 1


@pytest.mark.parametrize(
    ("text", "value"), [("1e-1", 0.1), ("5.e-2", 0.05), ("+2E-1", 0.2), ("0.3", 0.3), ("1", 1.0)]
)
def test_numbers_may_be_written_as_powers_of_ten(text, value, tmp_path):
    assert (
        load_config(None, [f"generator.pred_iou_thresh={text}"]).generator.pred_iou_thresh == value
    )
    path = tmp_path / "run.yaml"
    path.write_text(f"generator:\n  pred_iou_thresh: {text}\nmodel:\n  name: 1e5b\n")
    config = load_config(path)
    assert config.generator.pred_iou_thresh == value
    assert config.model.name == "1e5b"


def test_tf32_on_a_cpu_is_refused_before_any_work():
    with pytest.raises(ConfigError, match=r"model\.precision: tf32 is a GPU's"):
        load_config(None, ["model.precision=tf32", "model.device=cpu"])
