"""The formats by name, and `export`, which takes a run into one of them."""

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from amg.errors import ConfigError
from amg.exports.coco import Coco
from amg.exports.cvat import Cvat
from amg.exports.label_map import LabelMap
from amg.exports.label_studio import LabelStudio
from amg.exports.panoptic import Panoptic
from amg.exports.parts import Export, ExportReport
from amg.exports.png import Png
from amg.exports.rendering import Format
from amg.exports.sa1b import Sa1b
from amg.exports.walk import Selection
from amg.exports.yolo import Yolo
from amg.runs.results import RunResults, open_run
from amg.runs.watching import OnImages
from amg.storage.urls import local_path, scheme_of

FORMATS: dict[str, type[Format]] = {
    "coco": Coco,
    "sa1b": Sa1b,
    "yolo": Yolo,
    "label-map": LabelMap,
    "panoptic": Panoptic,
    "png": Png,
    "label-studio": LabelStudio,
    "cvat": Cvat,
}


def export(
    run: RunResults | str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str],
    *,
    progress: OnImages = lambda done, total: None,
    **options: Any,
) -> ExportReport:
    """Write the masks of a run, open or not, into the local folder `out` in a format of `FORMATS`.

    Options are the fields of `Selection`, for all formats, and those of the format's own. The same
    call goes on where one was interrupted.

    Raises ConfigError for a format or option that there is not, RunError if there are no masks,
    OutputError if the folder holds something else, StorageError where it cannot be written.
    """
    if to not in FORMATS:
        raise ConfigError(f"format {to!r}: expected one of {', '.join(FORMATS)}")
    if scheme_of(os.fspath(out)):
        raise ConfigError(f"{os.fspath(out)}: exports go to a local folder; copy it from there")
    kind = FORMATS[to]
    common = {key: options.pop(key) for key in Selection.model_fields if key in options}
    selection = _parse(Selection, common, to)
    chosen = _parse(kind.Options, options, to)
    opened = run if isinstance(run, RunResults) else open_run(run)
    opened.require_masks()
    folder = Path(local_path(os.fspath(out))).expanduser().absolute()
    return Export(opened, kind, chosen, folder, selection).execute(progress)


def _parse(model: type[BaseModel], values: dict[str, Any], to: str) -> Any:
    unknown = sorted(values.keys() - model.model_fields.keys())
    if unknown:
        known = ", ".join([*model.model_fields, *Selection.model_fields])
        raise ConfigError(f"{to} has no option {', '.join(unknown)}; it has {known}")
    try:
        return model(**values)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(*problems) from None
