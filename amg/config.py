"""Configuration: strict pydantic models, one default in one place, YAML in, clear errors out."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from amg.errors import ConfigError

UnitInterval = Annotated[float, Field(ge=0, le=1)]
Point = Annotated[tuple[UnitInterval, UnitInterval], Field(strict=False)]
PointGrid = Annotated[tuple[Point, ...], Field(strict=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        # Validation calls this for nested models too, so every level raises the same error.
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(*_explain(error, type(self))) from None


class GeneratorConfig(_Strict):
    """How masks are generated: names of `SAM2AutomaticMaskGenerator`, defaults of SAM's (1.0).

    Values that are not set explicitly give way to the model's own defaults, where it has some:
    `MaskGenerator(model, config).config` is what is in force.
    """

    points_per_side: int | None = Field(default=32, ge=1, le=1024)
    """Points along one side of the image: points_per_side ** 2 prompts. None: `point_grids`."""
    points_follow_aspect: bool = False
    """About as many points, but at even distances: more along the longer side of a crop."""
    memory_budget: Annotated[ByteSize, Field(gt=0)] | None = None
    """Bytes, or "2GB", for prompts and masks in flight, beside the model, its image encoder's
    arrays and the image. None: a quarter of what the device has free."""
    points_per_batch: int | None = Field(default=None, ge=1)
    """Prompts that the model decodes at once. None: what the memory budget allows."""
    pred_iou_thresh: UnitInterval = 0.88
    """Keep masks whose predicted IoU is above; 0 keeps all."""
    stability_score_thresh: UnitInterval = 0.95
    """Keep masks whose stability score is at least this; 0 keeps all."""
    stability_score_offset: float = Field(default=1.0, ge=0)
    """How far the logit threshold moves each way to measure stability."""
    object_score_thresh: float | None = None
    """Keep masks whose object score, the logit that there is an object at all, is at least this.
    Of SAM 2's models alone; None keeps all."""
    mask_threshold: float = 0.0
    """Pixels whose logit is above are the mask."""
    multimask_output: bool = True
    """Three masks for each point, not one."""
    use_m2m: bool = False
    """Predict each mask again with itself as a prompt: finer, and several times slower."""
    box_nms_thresh: UnitInterval = 0.7
    """Box IoU above which the mask of lower predicted IoU goes, within a crop."""
    crop_n_layers: int = Field(default=0, ge=0, le=6)
    """Layers of crops beside the whole image; layer i has (2 ** i) ** 2 crops."""
    crop_skip_image: bool = False
    """Leave out the whole image: its crops alone, for images where everything is small."""
    crop_nms_thresh: UnitInterval = 0.7
    """Box IoU above which the mask of the larger crop goes, between crops."""
    crop_overlap_ratio: float = Field(default=512 / 1500, ge=0, lt=1)
    """Overlap of the first layer's crops, as a share of the image's short side."""
    crop_n_points_downscale_factor: int = Field(default=1, ge=1)
    """Points per side are divided by this to the power of the crop's layer."""
    point_grids: Annotated[tuple[PointGrid, ...] | None, Field(strict=False)] = None
    """Instead of `points_per_side`: for each layer, points (x, y) in the unit square."""
    min_mask_region_area: int = Field(default=0, ge=0)
    """Fill holes and drop islands smaller than this many pixels; 0 leaves masks alone. On the final
    masks, SAM 2's too: its own generator does it on low-res logits, and on a GPU alone."""
    mask_nms_thresh: UnitInterval = 1.0
    """Mask IoU above which the mask of lower predicted IoU goes, among all that are left; 1 keeps
    all. Boxes cannot tell a thing from what surrounds it, masks can: with this, `box_nms_thresh`
    may be higher."""
    min_area: int = Field(default=0, ge=0)
    """Pixels that a final mask has at least. Areas decide last, after every NMS: a filter only
    takes masks away, and never lets a near copy of what it removed come in."""
    max_area: int | None = Field(default=None, ge=1)
    """Pixels that a final mask has at most."""
    max_area_fraction: float = Field(default=1.0, gt=0, le=1)
    """The share of the image's pixels that a final mask has at most."""
    find_parents: bool = False
    """Tell of each final mask the smallest that contains it."""
    parent_containment: float = Field(default=0.95, gt=0, le=1)
    """The share of a mask that has to lie in a larger one for that to contain it."""
    keep_candidates: bool = False
    """Keep also what NMS chose from: all masks that passed the filters by score and by crop edge.
    Rows are many times larger; `amg refilter` then needs no model for any NMS."""
    encoder_batch_size: int | None = Field(default=None, ge=1)
    """Crops that the image encoder takes at once. None: 1 on a CPU, 4 on other devices."""

    @model_validator(mode="before")
    @classmethod
    def _read_point_grids(cls, values: Any) -> Any:
        """Take grids as arrays (N, 2) or lists; given alone, they replace `points_per_side`."""
        grids = values.get("point_grids") if isinstance(values, dict) else None
        if not isinstance(grids, list | tuple | np.ndarray):
            return values
        grids = [grid.tolist() if isinstance(grid, np.ndarray) else grid for grid in grids]
        return {"points_per_side": None, **values, "point_grids": grids}

    @model_validator(mode="after")
    def _check_what_goes_together(self) -> "GeneratorConfig":
        if self.points_follow_aspect and self.point_grids is not None:
            raise ConfigError("points_follow_aspect: point_grids say themselves where points are")
        if self.crop_skip_image and not self.crop_n_layers:
            raise ConfigError("crop_skip_image: nothing is left where crop_n_layers is 0")
        if self.max_area is not None and self.max_area < self.min_area:
            raise ConfigError(f"max_area: {self.max_area} is less than min_area: {self.min_area}")
        return self

    @model_validator(mode="after")
    def _check_points(self) -> "GeneratorConfig":
        if (self.points_per_side is None) == (self.point_grids is None):
            raise ConfigError("points_per_side, point_grids: give exactly one of them")
        if self.point_grids is not None and len(self.point_grids) <= self.crop_n_layers:
            raise ConfigError(
                f"point_grids: {self.crop_n_layers + 1} grids are needed for "
                f"crop_n_layers={self.crop_n_layers}, got {len(self.point_grids)}"
            )
        return self

    def for_model(self, defaults: Mapping[str, Any]) -> "GeneratorConfig":
        """The same configuration on top of a model's `defaults`: what was set explicitly wins."""
        explicit = {name: getattr(self, name) for name in self.model_fields_set}
        return GeneratorConfig(**{**defaults, **explicit})


BUILT_IN_MODEL = "nano"
_WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


def name_of_checkpoint(checkpoint: str | Path) -> str:
    """What a checkpoint without a model's name is called: its file, its folder, owner/name."""
    text = str(checkpoint)
    if text.startswith("hf:"):
        return text.removeprefix("hf:")
    path = Path(text).expanduser().absolute()
    return path.stem if path.suffix.lower() in _WEIGHTS_SUFFIXES else path.name


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


class ModelConfig(_Strict):
    """Which model does the work."""

    name: str | None = None
    """One of `amg models`. None: the built-in one, or what the checkpoint is."""
    checkpoint: Annotated[str | None, BeforeValidator(_as_text)] = None
    """A file, a folder in Hugging Face's layout, or hf:owner/name."""
    device: str | None = None
    imgsz: int | None = Field(default=None, ge=16, multiple_of=16)
    precision: Literal["float32", "tf32", "bf16", "fp16"] = "float32"
    """All but float32 are faster and change masks a little; all but bf16 need a GPU."""
    compile: bool = False
    """Compile the image encoder, for a minute or so at the first image of each process."""

    @model_validator(mode="after")
    def _check_precision(self) -> "ModelConfig":
        if self.precision in ("tf32", "fp16") and self.device == "cpu":
            raise ConfigError(f"precision: {self.precision} is a GPU's, and device is cpu")
        return self

    @property
    def shown_name(self) -> str:
        """What the model is called: by its name, else by its checkpoint's."""
        if self.name is None and self.checkpoint is not None:
            return name_of_checkpoint(self.checkpoint)
        return self.name or BUILT_IN_MODEL


class RunConfig(_Strict):
    """How a corpus is worked through and written."""

    on_duplicate: Literal["refuse", "skip", "number"] = "refuse"
    """Of images with the same id: refuse the inputs, leave out all but the first, or put #2, #3,
    ... behind the ids of the others."""
    allow: Annotated[tuple[str, ...] | None, Field(strict=False)] = None
    """What paths and URLs in lists and tables have to begin with. None: all that a list names; of
    a table what is in its folder, or remote."""
    images_per_shard: int = Field(default=256, ge=1)
    """Images in one Parquet file."""
    images_per_batch: int = Field(default=4, ge=1)
    """Images that are generated together, sharing encoder batches."""
    decode_threads: int = Field(default=4, ge=1, le=64)
    """Threads that read, decode and prepare images ahead of the model: SAM's are resized. One does
    some 18 a second of SA-1B's size."""
    prefetch_bytes: int = Field(default=2**30, ge=1)
    """Images that may wait for the model; one larger than this waits alone. Each thread may go over
    it, by the crops of one image and by a copy, four bytes a pixel, that Pillow resizes."""
    multimask: bool = False
    """Of each prompt keep all three masks, not the one of the best predicted IoU."""
    max_image_pixels: int = Field(default=2**28, ge=1)
    """Images with more pixels become rows with status too_large."""
    drain_s: float = Field(default=20.0, ge=0)
    """How long running shards may take to finish after a signal, before they are dropped."""
    max_failure_rate: UnitInterval = 0.5
    """Stop, resumable, when a larger share of this call's images has failed, of 1,000 at least."""
    max_unread_in_a_row: int = Field(default=100, ge=1)
    """Stop, resumable, when so many images in a row cannot be read, and none that could be before
    can: a mount is gone, or is another one."""
    max_attempts: int = Field(default=5, ge=1)
    """Attempts at a shard that fail for no image's fault before it is left for the next run."""
    max_kills_per_image: int = Field(default=2, ge=1)
    """Workers that an image may kill or hang before its row says crashed."""
    stall_timeout_s: float = Field(default=900, gt=0)
    """A worker that makes no step for so long is replaced."""


class EngineConfig(_Strict):
    """Where the workers live. None chooses for the machine or cluster that is found."""

    name: Literal["local", "ray"] = "local"
    address: str | None = None
    """Of a Ray cluster. None joins the one that Ray knows (`RAY_ADDRESS`, within a Ray job its own,
    what `ray start` has begun here), else starts one here; "auto" never does, "local" always."""
    min_workers: int = Field(default=1, ge=1)
    """Give up when fewer workers than this could be started in `start_timeout_s`."""
    max_workers: int | None = Field(default=None, ge=1)
    """Workers are added up to this as resources appear."""
    cpus_per_worker: float | None = Field(default=None, ge=0)
    gpus_per_worker: float | None = Field(default=None, ge=0)
    """May be a fraction, so that workers share a device."""
    start_timeout_s: float = Field(default=1800, gt=0)


class Config(_Strict):
    """Everything that `amg run` can be told."""

    model: ModelConfig = ModelConfig()
    generator: GeneratorConfig = GeneratorConfig()
    run: RunConfig = RunConfig()
    engine: EngineConfig = EngineConfig()


OF_THE_CALL: Mapping[str, Any] = {
    "model": {"device", "compile"},
    "generator": {"memory_budget", "points_per_batch", "encoder_batch_size"},
    "run": {
        *("images_per_batch", "decode_threads", "prefetch_bytes"),
        *("drain_s", "max_failure_rate", "max_unread_in_a_row", "max_attempts"),
    },
    "engine": True,
}
"""Keys that say where and how work is done, and when it is given up: no row depends on them. Those
of one call are not those of the next, which may be on another machine."""


def without_call(config: Config) -> Config:
    """What decides rows; the keys of `OF_THE_CALL` have their defaults again."""
    return Config(**config.model_dump(exclude=dict(OF_THE_CALL), exclude_unset=True))


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, and numbers such as 1e-3, which by the letter are words."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str | bytes) -> Any:
    """The value in a YAML text, of plain types alone. Raises yaml.YAMLError."""
    return yaml.load(text, _YamlLoader)  # noqa: S506 - it is a SafeLoader


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply overrides of the form `section.key=value`, values in YAML.

    Raises ConfigError naming the key's path, the value and the nearest valid key.
    """
    tree: dict[str, Any] = _read_yaml(path) if path is not None else {}
    return _with_overrides(tree, overrides)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """A configuration with overrides as `load_config` takes them. Raises ConfigError."""
    return _with_overrides(config.model_dump(exclude_unset=True), overrides)


def _with_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> Config:
    for text in overrides:
        _apply_override(tree, text)
    return Config(**tree)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(tree).__name__}")
    # A section whose keys are all commented out reads as None.
    return {key: {} if section is None else section for key, section in tree.items()}


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key_path, separator, text = override.partition("=")
    if not separator or not key_path:
        raise ConfigError(f"--set {override!r}: expected section.key=value")
    *sections, key = key_path.strip().split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override!r}: {section} is no section")
    try:
        tree[key] = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from error


def _explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each problem: the key's path, what is wrong, the value, the nearest key."""
    lines: list[str] = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            lines += [f"{path}.{line}" if path else line for line in cause.problems]
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{path}: no such key{_nearest(path, model)}")
        else:
            value = repr(problem["input"])
            shown = value if len(value) <= 60 else value[:57] + "..."
            lines.append(f"{path}: {problem['msg'].lower()}, got {shown}")
    return lines


def _nearest(key: str, model: type[BaseModel]) -> str:
    close = difflib.get_close_matches(key, model.model_fields, n=1, cutoff=0.4)
    return (
        f"; did you mean {close[0]}?" if close else f"; there are {', '.join(model.model_fields)}"
    )
