"""A folder of everything that is wrong with images and their names: one row for each file."""

import os
import random
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import amg
from amg.runs.schema import FAILED
from tests.pipelines.helpers import make_run

ODD_NAMES = [
    b"with space.png",
    b"new\nline.png",
    b"tab\tand \"quotes\" and 'more'.png",
    b"<img src=x onerror=alert(1)>.png",
    b"caf\xe9 in latin-1.png",
    "日本語 ☃ \u202eright to left.png".encode(),
    b"n" * 246 + b".png",
    b"-rf.png",
    b"*?[a].png",
    b"a%2Fb#c?d=e.png",
    b"::member.png",
    b"\\xff.png",
    b"UPPER.PNG",
]


def _encode(image, kind, **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The folder, and the names of all its files as bytes."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = random.Random(0)
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    good = {kind: _encode(image, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}
    files = dict.fromkeys(ODD_NAMES, good["PNG"])
    for kind, data in good.items():
        suffix = b"." + kind.lower().encode()
        files[b"good" + suffix] = data
        files[b"wrong-suffix-" + kind.encode() + b".jpg"] = data
        files[b"no-suffix-" + kind.encode()] = data
        for cut in (1, 10, len(data) // 2, len(data) - 1):
            files[b"cut-%d" % cut + suffix] = data[:cut]
        for i in range(30):
            spoilt = bytearray(data)
            for _ in range(rng.randint(1, 8)):
                spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
            files[b"flipped-%02d" % i + suffix] = bytes(spoilt)
    files[b"zero.png"] = b""
    files[b"text.jpg"] = b"this is no image\n" * 100
    files[b"html.jpg"] = b"<html><body>404 Not Found</body></html>"
    files[b"bomb.png"] = _encode(Image.new("1", (30000, 30000)), "PNG")
    files[b"random.webp"] = rng.randbytes(5000)
    for mode in ("CMYK", "L", "LA", "P", "RGBA", "I;16", "1", "F"):
        kind = "TIFF" if mode in ("CMYK", "F") else "PNG"
        picture = Image.new(mode, (12, 9)) if mode == "I;16" else image.convert(mode)
        files[b"mode-" + mode.replace(";", "-").encode() + b"." + kind.lower().encode()] = _encode(
            picture, kind
        )
    for name, data in files.items():
        (folder / os.fsdecode(name)).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    (folder / "broken-link.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "up").symlink_to(folder)
    os.mkfifo(folder / "pipe.jpg")
    return folder, [*files, b"broken-link.png", b"loop.png", b"pipe.jpg"]


@pytest.mark.usefixtures("forked")
def test_every_file_is_one_row_and_no_worker_dies(hostile, tmp_path):
    folder, names = hostile
    report = make_run(folder, tmp_path / "out").execute()
    rows = {row.image_id: row for row in amg.open_run(tmp_path / "out").rows()}
    assert report.is_complete
    assert report.tally.images == len(rows) == len(names)
    assert set(rows) == {name.decode("utf-8", "backslashreplace") for name in names}
    assert "worker_lost" not in (tmp_path / "out" / "events.jsonl").read_text()
    for row in rows.values():
        assert (row.error is not None) == (row.status in FAILED)
    statuses = {name: rows[name].status for name in rows}
    assert all(statuses[n.decode("utf-8", "backslashreplace")] == "ok" for n in ODD_NAMES)
    assert all(status == "ok" for name, status in statuses.items() if "suffix" in name)
    assert statuses["broken-link.png"] == "missing"
    assert statuses["bomb.png"] == "too_large"
    for name in ("zero.png", "text.jpg", "html.jpg", "pipe.jpg", "loop.png", "random.webp"):
        assert statuses[name] == "decode_error", name
    assert all(s == "decode_error" for n, s in statuses.items() if n.startswith("cut-1."))
