"""Values as exports write them."""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from amg.errors import OutputError
from amg.exports.rendering import Document, Picture, Records
from amg.storage.urls import name_of

_BEGINS_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
INDEX = Records("index", separator=b"")


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. Raises OutputError for numbers that JSON does not have."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise OutputError(f"a score or point is no number: {error}") from error
    return text.encode()


def exact(value: float) -> float | None:
    """The shortest decimal that is the same 32-bit number: rows hold no more. None for NaN."""
    return None if math.isnan(value) else float(str(np.float32(value)))


def file_name(picture: Picture, rule: Literal["id", "uri", "name"]) -> str:
    """What a picture is called: its id, where it was read from, or the last part of that."""
    if rule == "id":
        return picture.image_id
    return picture.uri if rule == "uri" else name_of(picture.uri)


def csv_lines(rows: Sequence[Sequence[object]]) -> bytes:
    """Rows of a CSV file. Text that a spreadsheet would take for a formula gets an apostrophe."""
    return "".join(map(_csv_line, rows)).encode()


def _csv_line(row: Sequence[object]) -> str:
    text = io.StringIO()
    # Before Python 3.13 only the characters of its own line ends are quoted: both are needed.
    csv.writer(text, lineterminator="\r\n").writerow(map(_harmless, row))
    return text.getvalue().removesuffix("\r\n") + "\n"


def _harmless(cell: object) -> object:
    """The cell, not to be run; numbers are none (OWASP, "CSV Injection")."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_BEGINS_FORMULAS) else cell


def index_line(picture: Picture, name: str) -> bytes:
    """The picture's line in the index of an export that has a file or folder an image."""
    return csv_lines([[name, picture.image_id, picture.uri, len(picture.masks)]])


def index_document() -> Document:
    """Which file is whose."""
    return Document("images.csv", [csv_lines([["file", "image_id", "uri", "masks"]]), INDEX])
