"""An image as somebody's program has it: an array, Pillow's, or a path."""

import io

import numpy as np
import pytest
from make_images import encode, noise, png
from PIL import Image

from amg.errors import ImageError
from amg.inputs.images import decode_image
from amg.inputs.pixels import as_pixels


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_an_array_is_itself():
    array = noise()
    assert as_pixels(array) is array


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_an_image_of_pillow_s_has_the_pixels_of_its_file(mode):
    """Alpha over white, 16 bits to 8, ...: what a run would have read."""
    image = Image.fromarray(noise(channels=3 if mode == "P" else 4))
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray(noise(channels=1).astype(np.int32) * 257).convert(mode)
    image = image.convert(mode)
    data = encode(image, "TIFF")
    expected = decode_image(data).rgb
    np.testing.assert_array_equal(as_pixels(opened(data)), expected)
    np.testing.assert_array_equal(as_pixels(image), expected)


def test_a_colour_key_is_seen():
    key = (b"tRNS", bytes([0, 10, 0, 20, 0, 30]))
    data = png(2, 1, depth=8, colour=2, pixels=bytes([10, 20, 30, 1, 2, 3]), chunks=(key,))
    np.testing.assert_array_equal(as_pixels(opened(data)), [[[255, 255, 255], [1, 2, 3]]])


def test_a_path_is_turned_upright_and_an_image_lies_as_it_does(tmp_path):
    """Boxes are in the pixels of the image whose `size` somebody knows."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    path.write_bytes(encode(Image.fromarray(noise(13, 17)), "PNG", exif=exif))
    assert as_pixels(path).shape == as_pixels(str(path)).shape == (17, 13, 3)
    assert as_pixels(Image.open(path)).shape == (13, 17, 3)


@pytest.mark.parametrize("image", [None, [[1, 2]], np.zeros((3, 3)), np.zeros((3, 3, 4), np.uint8)])
def test_what_is_no_image_is_named(image):
    with pytest.raises(ImageError, match=r"images\[3\]: expected"):
        as_pixels(image, "images[3]")


def test_damaged_files_are_named(tmp_path):
    data = encode(Image.fromarray(noise(60, 60)), "PNG")
    (tmp_path / "cut.png").write_bytes(data[:-200])
    with pytest.raises(ImageError, match=r"image: .*cut\.png: PNG"):
        as_pixels(tmp_path / "cut.png")
    with pytest.raises(ImageError, match="image: RGB"):
        as_pixels(Image.open(tmp_path / "cut.png"))
