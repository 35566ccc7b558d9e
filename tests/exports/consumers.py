"""What others' libraries read from our exports; runs in a virtual environment of its own.

`python consumers.py READER FOLDER` prints JSON: for each image, by its name there without suffix,
the masks that the library makes of it, as COCO counts. These libraries bring other versions of
what we use (and a second OpenCV), so `make test-all` installs them apart.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_masks


def counts(bits):
    return coco_masks.encode(np.asfortranarray(bits, dtype=np.uint8))["counts"].decode()


def datumaro(folder, kind):
    from datumaro.components.annotation import AnnotationType
    from datumaro.components.dataset import Dataset

    masks = defaultdict(list)
    for item in Dataset.import_from(str(folder), kind):
        found = [a for a in item.annotations if a.type == AnnotationType.mask]
        found.sort(key=lambda annotation: annotation.id)
        masks[item.id] += [counts(annotation.image) for annotation in found]
    return masks


def datumaro_polygons(folder):
    """Polygons of one annotation are a group; they are filled as pycocotools does."""
    from datumaro.components.annotation import AnnotationType
    from datumaro.components.dataset import Dataset

    masks = {}
    for item in Dataset.import_from(str(folder), "coco_instances"):
        height, width = item.media.size
        groups = defaultdict(list)
        for annotation in item.annotations:
            if annotation.type == AnnotationType.polygon:
                groups[annotation.group].append(list(annotation.points))
        masks[item.id] = [
            coco_masks.merge(coco_masks.frPyObjects(groups[group], height, width))[
                "counts"
            ].decode()
            for group in sorted(groups)
        ]
    return masks


def datasets(folder):
    from datasets import load_dataset

    files = sorted(str(path) for path in folder.rglob("*.json") if ".amg-export" not in path.parts)
    masks = {}
    for row in load_dataset("json", data_files=files, split="train"):
        name = row["image"]["file_name"].rpartition(".")[0]
        masks[name] = [counts(coco_masks.decode(a["segmentation"])) for a in row["annotations"]]
    return masks


def brushes(folder):
    from label_studio_sdk.converter.brush import decode_rle

    masks = {}
    for task in json.loads((folder / "tasks.json").read_bytes()):
        found = []
        for region in task["predictions"][0]["result"]:
            shape = region["original_height"], region["original_width"], 4
            pixels = decode_rle(region["value"]["rle"]).reshape(shape)
            assert (pixels == pixels[..., :1]).all()
            assert set(np.unique(pixels)) <= {0, 255}
            found.append(counts(pixels[..., 3] > 0))
        masks[task["data"]["image_id"].rpartition(".")[0]] = found
    return masks


def predictions(folder):
    """Label Studio's own check of predictions against the labelling interface."""
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((folder / "config.xml").read_text())
    interface.validate()
    result = {}
    for task in json.loads((folder / "tasks.json").read_bytes()):
        assert interface.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction)
        result[task["data"]["image_id"].rpartition(".")[0]] = []
    return result


def supervision(folder):
    import supervision as sv

    dataset = sv.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml"), force_masks=True
    )
    return {
        Path(path).stem: [] if found.mask is None else [counts(mask) for mask in found.mask]
        for path, found in dataset.annotations.items()
    }


READERS = {
    "datumaro-coco": lambda folder: datumaro(folder, "coco_instances"),
    "datumaro-panoptic": lambda folder: datumaro(folder, "coco_panoptic"),
    "datumaro-sa1b": lambda folder: datumaro(folder, "segment_anything"),
    "datumaro-polygons": datumaro_polygons,
    "datasets": datasets,
    "label-studio-brush": brushes,
    "label-studio-check": predictions,
    "supervision": supervision,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(READERS[sys.argv[1]](Path(sys.argv[2]))) + "\n")
