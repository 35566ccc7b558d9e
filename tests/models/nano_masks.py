"""Masks of the built-in model on three photos, kept to see when they change.

    python -m tests.models.nano_masks

writes them anew, after a change that is meant to change them: other weights, other defaults.
"""

import json
from pathlib import Path

import skimage.data

import amg
from amg.evaluate.parity import read_annotations

KEPT = Path(__file__).parent / "nano_masks.json"
PHOTOS = ("astronaut", "coffee", "rocket")


def segment(model, photo):
    """The annotations of a photo, with the model's own defaults."""
    return amg.MaskGenerator(model).generate(photo).to_annotations()


def read_kept():
    """The masks of each photo as they were."""
    return {name: read_annotations(masks) for name, masks in json.loads(KEPT.read_text()).items()}


if __name__ == "__main__":
    nano = amg.load_model("nano", device="cpu")
    masks = {name: segment(nano, getattr(skimage.data, name)()) for name in PHOTOS}
    KEPT.write_text(json.dumps(masks, separators=(",", ":")) + "\n")
