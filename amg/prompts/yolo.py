"""Prompts from folders of YOLO labels: a text file an image, a line an object.

A line is `class cx cy w h`, shares of the image's size, with a confidence behind it where a
detector wrote it; or `class x y x y x y ...`, an outline, whose box is asked for. Names of classes
are those of data.yaml or classes.txt, in the folder or up to two above it.
Format: https://docs.ultralytics.com/datasets/detect/#ultralytics-yolo-format
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import yaml

from amg.config import read_yaml
from amg.errors import ConfigError
from amg.prompts.columns import BATCH, PromptColumns, numbers

_NAMES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")
_BOX, _BOX_AND_SCORE, _LEAST_OUTLINE = 5, 6, 7


def read_names(folder: Path) -> dict[str, int]:
    """The classes of a folder of labels by name, from 1 as COCO counts them.

    Raises ConfigError for a file without names.
    """
    for above in (folder, *list(folder.parents)[:2]):
        for path in (above / name for name in _NAMES):
            if path.is_file():
                return _names_in(path)
    return {}


def _names_in(path: Path) -> dict[str, int]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".yaml":
            listed = enumerate(line.strip() for line in text.splitlines())
            return {name: i + 1 for i, name in listed if name}
        names = read_yaml(text)["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {str(name): int(i) + 1 for i, name in pairs}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: no names of classes: {error!r}") from error


def read_labels(folder: Path, names: dict[str, int]) -> Iterator[pa.RecordBatch]:
    """The lines of all label files below a folder; their images are called as the files.

    Raises ConfigError naming a line that is none.
    """
    by_number = {number - 1: name for name, number in names.items()}
    columns = PromptColumns(is_share=True)
    for path in _label_files(folder):
        image = path.relative_to(folder).with_suffix("").as_posix().removeprefix("labels/")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                _add(columns, image, number, line.split(), by_number)
            except ConfigError as error:
                raise ConfigError(f"{path}: line {number + 1}: {error}") from error
        if len(columns) >= BATCH:
            yield columns.take()
    if len(columns):
        yield columns.take()


def _label_files(folder: Path) -> Iterator[Path]:
    """A dataset's folder has its labels in `labels`; its other text files are lists of images."""
    root = folder / "labels" if (folder / "labels").is_dir() else folder
    for path in sorted(root.rglob("*.txt")):
        if path.name not in _NAMES and path.is_file():
            yield path


def _add(
    columns: PromptColumns, image: str, number: int, words: list[str], names: dict[int, str]
) -> None:
    if not words[0].isdecimal():
        raise ConfigError(f"expected the number of a class, got {words[0][:60]!r}")
    values = numbers(words[1:], len(words) - 1, "coordinates")
    score = None
    if len(words) in (_BOX, _BOX_AND_SCORE):
        cx, cy, width, height = values[:4]
        box = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
        score = values[4] if len(words) == _BOX_AND_SCORE else None
    elif len(words) >= _LEAST_OUTLINE and len(words) % 2:
        xs, ys = values[::2], values[1::2]
        box = [min(xs), min(ys), max(xs), max(ys)]
    else:
        raise ConfigError(f"{len(words)} words: neither `class cx cy w h` nor an outline")
    category = names.get(int(words[0]), words[0])
    columns.add(image, str(number), box, (), category, score)
