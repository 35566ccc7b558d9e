import os
import re
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import PIL
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_images import HAS_AVIF, claiming, encode, gif, noise, png, samples, smooth, tiff
from PIL import Image, ImageCms, ImageFile

from amg.errors import ImageError
from amg.inputs import images
from amg.inputs.images import decode_image
from amg.inputs.reading import read_bytes

SINCE_13 = int(PIL.__version__.split(".")[0]) >= 13
needs_13 = pytest.mark.skipif(not SINCE_13, reason="Pillow 13 is the first to read this file")
needs_avif = pytest.mark.skipif(not HAS_AVIF, reason="this Pillow has no AVIF")
AVIF = pytest.param("AVIF", marks=needs_avif)
SAMPLES = samples()
CLAIMING = ["PNG", "GIF", "TIFF", "BMP", "WEBP", "JPEG"]


def failure(data: bytes, **limits) -> ImageError:
    """The error that must come of these bytes, of a form fit for a row."""
    with pytest.raises(ImageError) as caught:
        decode_image(data, **limits)
    error, text = caught.value, str(caught.value)
    assert error.status in ("decode_error", "too_large")
    assert 0 < len(text) <= 200
    assert text.isascii() and text.isprintable()
    return error


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The compositing rule, in exact integers: colour over white, rounded to nearest."""
    wide, alpha = colour.astype(np.int64), alpha.astype(np.int64)[..., None]
    return ((wide * alpha + 255 * (255 - alpha)) * 2 + 255) // 510


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey)[..., None], 3, axis=-1)


# Formats


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_the_pixels_stored(format_name):
    pixels = noise(131, 67)  # more rows than a band, and no multiple of one
    options = {"lossless": True} if format_name == "WEBP" else {}
    decoded = decode_image(encode(Image.fromarray(pixels), format_name, **options))
    assert np.array_equal(decoded.rgb, pixels)
    assert decoded.source_mode == "RGB"
    assert decoded.rgb.dtype == np.uint8
    assert decoded.rgb.flags.c_contiguous and decoded.rgb.flags.writeable


def test_jpeg_is_what_pillow_decodes():
    data = encode(Image.fromarray(noise(131, 67)), "JPEG", quality=80)
    with Image.open(images.BytesIO(data)) as image:
        assert np.array_equal(decode_image(data).rgb, np.array(image))


@needs_avif
def test_avif_is_read():
    decoded = decode_image(encode(Image.fromarray(smooth()), "AVIF", quality=95))
    assert np.abs(decoded.rgb.astype(int) - smooth()).mean() < 4


@pytest.mark.skipif("HEIF" not in images.FORMATS, reason="pillow_heif is not installed")
@pytest.mark.parametrize("orientation", [1, 6])
def test_heif_is_read(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored(smooth(), orientation)))
    decoded = decode_image(encode(image, "HEIF", quality=95, exif=exif.tobytes())).rgb
    assert decoded.shape == smooth().shape
    assert np.abs(decoded.astype(int) - smooth()).mean() < 4


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_read(name):
    decoded = decode_image(SAMPLES[name])
    assert decoded.rgb.ndim == 3 and decoded.rgb.shape[2] == 3
    assert decoded.rgb.flags.c_contiguous


@pytest.mark.parametrize("format_name", ["PPM", "ICO", "TGA", "PCX", "JPEG2000", "EPS", "PDF"])
def test_other_formats_are_refused(format_name, monkeypatch):
    data = encode(Image.fromarray(smooth()), format_name)
    monkeypatch.setattr("PIL.EpsImagePlugin.EpsImageFile._open", lambda _: pytest.fail("EPS read"))
    assert failure(data).status == "decode_error"


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"GIF89a", b"<svg/>", b"\xff\xd8\xff", b"RIFF    WEBP"]
)
def test_what_is_no_image_is_a_decode_error(data):
    assert failure(data).status == "decode_error"


def test_messages_name_what_is_wrong():
    assert "0 bytes" in str(failure(b""))
    assert "unknown image format" in str(failure(b"hello"))
    assert "JPEG: OSError: image file is truncated" in str(failure(SAMPLES["jpeg"][:-100]))
    assert "60000 x 60000" in str(failure(claiming("PNG", 60000, 60000)))


@pytest.mark.parametrize("format_name", CLAIMING)
def test_zero_size_is_a_decode_error(format_name):
    if format_name == "WEBP":
        pytest.skip("WEBP stores the size less one")
    assert failure(claiming(format_name, 0, 5)).status == "decode_error"


# Limits


@pytest.mark.parametrize(
    "format_name",
    [pytest.param(name, marks=needs_13) if name == "WEBP" else name for name in CLAIMING],
)
@pytest.mark.parametrize("pillow_limit", [None, 1, 89478485])
def test_bombs_are_too_large_by_their_header(format_name, pillow_limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    side = 16000 if format_name == "WEBP" else 60000
    start = time.perf_counter()
    error = failure(claiming(format_name, side, side), max_pixels=2**26)
    assert error.status == "too_large"
    assert time.perf_counter() - start < 0.5  # filling a canvas of 3.6 Gpx takes longer


@pytest.mark.parametrize("pillow_limit", [None, 1, 89478485])
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff", "tiff lzw", "bmp", "gif"])
def test_only_our_limit_decides(name, pillow_limit, monkeypatch):
    height, width, _ = decode_image(SAMPLES[name]).rgb.shape
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    decode_image(SAMPLES[name], max_pixels=height * width)
    assert failure(SAMPLES[name], max_pixels=height * width - 1).status == "too_large"
    assert pillow_limit == Image.MAX_IMAGE_PIXELS


def test_pillows_own_limit_holds_outside(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    decode_image(SAMPLES["png"])
    with pytest.raises(Image.DecompressionBombError):
        Image.open(images.BytesIO(SAMPLES["png"]))


def test_gif_frame_larger_than_the_screen(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert failure(gif((4, 4), (60000, 60000))).status == "too_large"
    assert failure(gif((4, 4), (300, 300)), max_pixels=80000).status == "too_large"


def test_tiff_of_a_huge_tile():
    tile = {322: 60000, 323: 60000, 324: 8, 325: 48, 259: 8}
    data = tiff(4, 4, b"\0" * 48, bits=(8, 8, 8), photometric=2, tags=tile)
    error = failure(data)
    assert error.status == "too_large" and "tile" in str(error)


def test_png_with_a_text_bomb():
    text = b"Comment\0\0" + zlib.compress(b"\0" * 2**24, 9)
    data = png(2, 2, depth=8, colour=0, pixels=b"abcd", chunks=((b"zTXt", text),))
    assert failure(data).status == "decode_error"


# EXIF orientation


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The picture as a camera stores it: EXIF 2.3, table of the 0th row's and column's places."""
    sides = (
        "top-left top-right bottom-right bottom-left left-top right-top right-bottom left-bottom"
    )
    row_0, column_0 = sides.split()[orientation - 1].split("-")
    height, width = upright.shape[:2]
    turned = row_0 in ("left", "right")  # stored rows are columns of the picture
    out = np.empty((width, height, 3) if turned else upright.shape, np.uint8)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            vertical, horizontal = (column, row) if turned else (row, column)
            if "bottom" in (row_0, column_0):
                vertical = height - 1 - vertical
            if "right" in (row_0, column_0):
                horizontal = width - 1 - horizontal
            out[row, column] = upright[vertical, horizontal]
    return out


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", AVIF])
def test_exif_orientation(format_name, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    image = Image.fromarray(stored(smooth(), orientation))
    data = encode(image, format_name, exif=exif, **lossless.get(format_name, {"quality": 95}))
    decoded = decode_image(data).rgb
    assert decoded.shape == smooth().shape
    difference = np.abs(decoded.astype(int) - smooth())
    assert difference.max() <= {"JPEG": 4, "AVIF": 60}.get(format_name, 0)
    assert difference.mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_16_bit_and_of_palettes(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    grey = noise(9, 5, 1)
    turned = np.ascontiguousarray(stored(three(grey), orientation)[..., 0])
    deep = encode(Image.fromarray(turned.astype(np.uint16) * 257), "PNG", exif=exif)
    assert np.array_equal(decode_image(deep).rgb, three(grey))
    palette = Image.fromarray(turned)
    palette.putpalette(bytes(range(255, -1, -1)) * 3)
    expected = np.asarray(palette.convert("RGB"))
    data = encode(palette, "PNG", exif=exif)
    assert np.array_equal(stored(decode_image(data).rgb, orientation), expected)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_unknown_orientation_is_ignored(value):
    exif = Image.Exif()
    exif[274] = value
    data = encode(Image.fromarray(smooth()), "PNG", exif=exif)
    assert np.array_equal(decode_image(data).rgb, smooth())


@pytest.mark.parametrize(
    "exif", [b"", b"II", b"Exif\0\0", b"garbage" * 9, b"II*\0\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_is_ignored(format_name, exif):
    if format_name == "JPEG":
        exif = b"Exif\0\0" + exif
    options = {"lossless": True} if format_name == "WEBP" else {}
    data = encode(Image.fromarray(smooth()), format_name, exif=exif, **options)
    plain = encode(Image.fromarray(smooth()), format_name, **options)
    assert np.array_equal(decode_image(data).rgb, decode_image(plain).rgb)


# Transparency


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF"])
def test_rgba_is_composited_over_white(format_name):
    pixels = noise(40, 40, 4)
    options = {"lossless": True, "exact": True} if format_name == "WEBP" else {}
    decoded = decode_image(encode(Image.fromarray(pixels), format_name, **options))
    assert np.array_equal(decoded.rgb, over_white(pixels[..., :3], pixels[..., 3]))
    assert decoded.source_mode == "RGBA"


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_grey_with_alpha(format_name):
    pixels = noise(40, 40, 2)
    decoded = decode_image(encode(Image.fromarray(pixels), format_name))
    assert np.array_equal(decoded.rgb, over_white(three(pixels[..., 0]), pixels[..., 1]))
    assert decoded.source_mode == "LA"


@needs_13
def test_premultiplied_grey():
    data = tiff(2, 1, b"\x40\x80\x00\x00", bits=(8, 8), tags={338: 1})
    decoded = decode_image(data)
    assert decoded.source_mode == "La"
    assert np.abs(decoded.rgb[0, :, 0].astype(int) - [0x40 + 127, 255]).max() <= 1


def test_palette_with_alpha_channel():
    palette = Image.fromarray(noise(channels=1))
    palette.putpalette(noise(1, 256).tobytes())
    alpha = noise(channels=1, seed=1)
    image = palette.convert("PA")
    image.putalpha(Image.fromarray(alpha))
    decoded = decode_image(encode(image, "TIFF"))
    assert decoded.source_mode == "PA"
    assert np.array_equal(decoded.rgb, over_white(np.asarray(palette.convert("RGB")), alpha))


@pytest.mark.parametrize("transparency", [3, bytes([255, 0, 128, 7])])
def test_palette_with_transparency(transparency):
    indices = (noise(70, 9, 1) % 8).astype(np.uint8)  # more rows than a band
    colours = noise(1, 8)[0]
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    alphas = np.full(8, 255)
    if isinstance(transparency, int):
        alphas[transparency] = 0
    else:
        alphas[: len(transparency)] = list(transparency)
    decoded = decode_image(encode(image, "PNG", transparency=transparency))
    assert decoded.source_mode == "P"
    assert np.array_equal(decoded.rgb, over_white(colours[indices], alphas[indices]))


def test_gif_transparency():
    indices = (noise(channels=1) % 4).astype(np.uint8)
    image = Image.fromarray(indices)
    colours = np.array([[9, 8, 7], [90, 80, 70], [200, 0, 0], [0, 0, 200]], np.uint8)
    image.putpalette(colours.tobytes())
    colours[2] = 255
    decoded = decode_image(encode(image, "GIF", transparency=2, optimize=False))
    assert np.array_equal(decoded.rgb, colours[indices])


@pytest.mark.parametrize(
    ("depth", "pixels", "key", "expected"),
    [
        (1, b"\x40", 0, [255, 255]),  # pixels 0 1
        (1, b"\x80", 1, [255, 0]),  # pixels 1 0: the key is white already
        (2, b"\x60", 1, [255, 170]),  # pixels 1 2
        (4, b"\x5a", 5, [255, 170]),  # pixels 5 10
        (8, b"\x05\x06", 5, [255, 6]),
        (16, b"\x01\x01\x01\x02", 0x101, [255, 1]),
    ],
)
def test_png_grey_colour_key(depth, pixels, key, expected):
    chunks = ((b"tRNS", struct.pack(">H", key)),)
    data = png(2, 1, depth=depth, colour=0, pixels=pixels, chunks=chunks)
    assert decode_image(data).rgb[0, :, 0].tolist() == expected


def test_png_colour_key():
    chunks = ((b"tRNS", struct.pack(">HHH", 1, 2, 3)),)
    pixels = bytes([1, 2, 3, 1, 2, 4, 3, 2, 1])
    data = png(3, 1, depth=8, colour=2, pixels=pixels, chunks=chunks)
    assert decode_image(data).rgb.tolist() == [[[255] * 3, [1, 2, 4], [3, 2, 1]]]


def test_png_16_bit_colour_key():
    chunks = ((b"tRNS", struct.pack(">HHH", 0x0105, 0x0205, 0x0305)),)
    pixels = struct.pack(">6H", 0x0105, 0x0205, 0x0305, 0x0505, 0x0505, 0x0505)
    data = png(2, 1, depth=16, colour=2, pixels=pixels, chunks=chunks)
    assert decode_image(data).rgb.tolist() == [[[255] * 3, [5] * 3]]


# More than 8 bits


GRADIENT = np.arange(65536, dtype=np.uint16).reshape(256, 256)
SCALED = (GRADIENT.astype(np.int64) + 128) // 257  # nearest; ties cannot occur, 257 is odd


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("form", ["png", "tiff", "tiff libtiff"])
def test_16_bit_grey_is_divided_by_257(form, order):
    image = Image.fromarray(GRADIENT)
    if form == "png":
        data = encode(image, "PNG")
    elif form == "tiff":
        pixels = GRADIENT.astype(order + "u2").tobytes()
        data = tiff(256, 256, pixels, bits=(16,), order=order)
    else:
        data = encode(image, "TIFF", compression="tiff_lzw")
    decoded = decode_image(data)
    assert decoded.source_mode == ("I;16B" if (form, order) == ("tiff", ">") else "I;16")
    assert np.array_equal(decoded.rgb, three(SCALED))


def test_16_bit_grey_where_zero_is_white():
    data = tiff(256, 256, GRADIENT.tobytes(), bits=(16,), photometric=0)
    assert np.array_equal(decode_image(data).rgb, three(255 - SCALED))


def test_12_bit_grey():
    data = tiff(2, 1, b"\xff\xf8\x00", bits=(12,))
    assert decode_image(data).rgb[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize("order", "<>")
def test_16_bit_colour_is_within_one_level(order):
    pixels = np.stack([GRADIENT, GRADIENT[::-1], GRADIENT.T], axis=-1)
    raw = pixels.astype(order + "u2").tobytes()
    files = [tiff(256, 256, raw, bits=(16, 16, 16), photometric=2, order=order)]
    if order == ">":
        files.append(png(256, 256, depth=16, colour=2, pixels=raw))
    for data in files:
        decoded = decode_image(data).rgb
        assert np.array_equal(decoded, pixels >> 8)
        assert np.abs(decoded - pixels / 257).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 257, 65535, 128], [0, 1, 255, 0]),  # taken as 16-bit
        ([0, 1, 2, 65536], [0, 0, 0, 255]),  # by its own range
        ([-100, 0, 100, 155], [0, 100, 200, 255]),
        ([70000] * 4, [0] * 4),
        ([-(2**31), 0, 2**31 - 1, 0], [0, 128, 255, 128]),
    ],
)
def test_32_bit_integers(values, expected):
    data = tiff(4, 1, struct.pack("<4i", *values), bits=(32,), tags={339: 2})
    decoded = decode_image(data)
    assert decoded.source_mode == "I"
    assert decoded.rgb[0, :, 0].tolist() == expected


def test_unsigned_32_bit_integers():
    data = tiff(3, 1, struct.pack("<3I", 0, 2**31, 2**32 - 1), bits=(32,))
    assert decode_image(data).rgb[0, :, 0].tolist() == [0, 128, 255]


def test_signed_16_bit_integers():
    data = tiff(3, 1, struct.pack("<3h", -10, 0, 245), bits=(16,), tags={339: 2})
    assert decode_image(data).rgb[0, :, 0].tolist() == [0, 10, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0, 0.25], [0, 128, 255, 64]),
        ([0.25, 0.5, 0.5, 0.5], [64, 128, 128, 128]),  # within 0..1: not stretched
        ([-1.0, 0.0, 1.0, 4.0], [0, 51, 102, 255]),
        ([np.nan, np.inf, 0.5, 1.0], [0, 0, 128, 255]),
        ([np.nan, -np.inf, 2.0, 3.0], [0, 0, 0, 255]),
        ([np.nan] * 4, [0] * 4),
        ([7.0] * 4, [0] * 4),
        ([-3.4e38, 0.0, 3.4e38, 0.0], [0, 128, 255, 128]),
    ],
)
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_floats(values, expected, compression):
    image = Image.fromarray(np.array([values], np.float32))
    decoded = decode_image(encode(image, "TIFF", compression=compression))
    assert decoded.source_mode == "F"
    assert decoded.rgb[0, :, 0].tolist() == expected


def test_a_range_is_that_of_the_whole_picture():
    values = np.repeat(np.arange(200, dtype=np.float32)[:, None] * 2, 3, axis=1)  # four bands
    decoded = decode_image(encode(Image.fromarray(values), "TIFF")).rgb
    assert np.array_equal(decoded, three(np.rint(values * 255 / 398)))


# Colour spaces


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "CMYK", pytest.param("YCbCr", marks=needs_13), "LAB"]
)
def test_modes_become_rgb(mode):
    image = Image.fromarray(smooth(100, 30)).convert(mode)
    decoded = decode_image(encode(image, "TIFF"))
    assert decoded.source_mode == mode
    assert np.array_equal(decoded.rgb, np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_is_not_inverted():
    image = Image.fromarray(smooth()).convert("CMYK")
    decoded = decode_image(encode(image, "JPEG", quality=100, subsampling=0))
    assert decoded.source_mode == "CMYK"
    assert np.abs(decoded.rgb.astype(int) - smooth()).max() < 8


def test_icc_profiles_are_ignored():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for format_name in ("PNG", "TIFF", "JPEG"):
        image = Image.fromarray(smooth())
        with_profile = decode_image(encode(image, format_name, icc_profile=profile))
        assert np.array_equal(with_profile.rgb, decode_image(encode(image, format_name)).rgb)


# Many frames


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF", "MPO", AVIF])
def test_first_frame(format_name):
    first = Image.new("RGB", (16, 8), (250, 5, 5))
    second = Image.new("RGB", (16, 8), (5, 5, 250))
    data = encode(first, format_name, save_all=True, append_images=[second])
    decoded = decode_image(data).rgb.astype(int)
    assert decoded.shape == (8, 16, 3)
    assert np.abs(decoded - (250, 5, 5)).max() < 12


# Damage


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated_files_are_whole_or_errors(name):
    data = SAMPLES[name]
    whole = decode_image(data).rgb
    cuts = {int(cut) for cut in np.linspace(0, len(data) - 1, 20)} | {len(data) - 2}
    errors = 0
    for cut in sorted(cuts):
        try:
            assert np.array_equal(decode_image(data[:cut]).rgb, whole)
        except ImageError as error:
            assert error.status == "decode_error"
            errors += 1
    assert errors >= 5


def test_tiff_with_a_directory_cut_short():
    """Else its orientation, 5 entries from the end, would be lost without a word."""
    data = SAMPLES["tiff 16"]
    for cut in range(len(data) - 4 - 5 * 12, len(data) - 4):
        assert failure(data[:cut]).status == "decode_error"


def test_big_tiff():
    data = encode(Image.fromarray(smooth()), "TIFF", big_tiff=True)
    assert data[2] == 43
    assert np.array_equal(decode_image(data).rgb, smooth())
    at = struct.unpack_from("<Q", data, 8)[0]
    assert failure(data[: at + 8 + 20 * 5]).status == "decode_error"


def test_truncation_is_an_error_where_another_library_allows_it(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert "LOAD_TRUNCATED_IMAGES" in str(failure(SAMPLES["jpeg"][:-100]))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12
    ),
    near_start=st.booleans(),
)
def test_only_image_errors_come_of_corrupted_bytes(name, changes, near_start):
    data = bytearray(SAMPLES[name])
    for place, value in changes:
        data[int(place * (min(len(data), 80) if near_start else len(data)))] = value
    try:
        rgb = decode_image(bytes(data), max_pixels=2**16).rgb
    except ImageError as error:
        assert error.status in ("decode_error", "too_large")
        assert len(str(error)) <= 200 and str(error).isprintable()
    else:
        assert rgb.shape[2] == 3 and rgb.shape[0] * rgb.shape[1] <= 2**16


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([data[:n] for data in SAMPLES.values() for n in (4, 12, 40)]),
    rest=st.binary(max_size=200),
)
def test_only_image_errors_come_of_noise(start, rest):
    with suppress(ImageError):
        decode_image(start + rest, max_pixels=2**16)


@pytest.mark.parametrize(
    "raised",
    [OSError, SyntaxError, ValueError, struct.error, MemoryError, OverflowError, RecursionError,
     KeyError, AssertionError, zlib.error, Image.DecompressionBombError, UserWarning, SystemError],
)  # fmt: skip
def test_any_exception_of_a_decoder_is_an_image_error(raised, monkeypatch):
    def load(_image):
        raise raised("what b'\x89secret' and\nmore\x00 " + "x" * 500)

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", load)
    error = failure(SAMPLES["png"])
    assert error.status == "decode_error"
    assert "secret" not in str(error)
    assert str(error).startswith(f"PNG: {raised.__name__}: ") or raised is struct.error
    assert isinstance(error.__cause__, raised)


def test_an_interrupt_is_let_through(monkeypatch):
    def load(_image):
        raise KeyboardInterrupt

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", load)
    with pytest.raises(KeyboardInterrupt):
        decode_image(SAMPLES["png"])
    monkeypatch.undo()
    assert images._max_pixels_here.get() is None  # the hooks let go all the same


# Warnings and threads


def warning_tiff() -> bytes:
    """A good TIFF about whose metadata Pillow warns: two values for one of a kind."""
    return tiff(2, 2, b"abcd", bits=(8,), tags={266: (1, 1)})


def test_the_warning_file_warns():
    with pytest.warns(UserWarning, match="Metadata Warning"):
        Image.open(images.BytesIO(warning_tiff()))


@pytest.mark.parametrize("action", ["error", "always", "default"])
def test_warnings_are_neither_raised_nor_printed(action, capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        assert decode_image(warning_tiff()).rgb[0, 0, 0] == ord("a")
        with pytest.warns(UserWarning) if action != "error" else pytest.raises(UserWarning):
            Image.open(images.BytesIO(warning_tiff()))  # those of others stay
    assert caught == []
    assert capfd.readouterr() == ("", "")


def test_nothing_is_printed_of_damaged_files(capfd):
    many_samples = tiff(2, 2, b"abcd", bits=(8,), tags={277: 2048})
    for data in (many_samples, b"no image", SAMPLES["png"][:100], SAMPLES["jpeg"][:300]):
        failure(data)
    assert capfd.readouterr().err == ""


def test_threads_do_not_mix(monkeypatch):
    """Good, bad, too large and warning files in eight threads, each with a limit of its own."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    good = {name: decode_image(data).rgb for name, data in SAMPLES.items()}

    def work(index: int) -> bool:
        name = sorted(SAMPLES)[index % len(SAMPLES)]
        height, width, _ = good[name].shape
        if index % 4 == 0:
            return failure(SAMPLES[name], max_pixels=height * width - 1).status == "too_large"
        if index % 4 == 1:
            return failure(SAMPLES[name][: len(SAMPLES[name]) // 3]).status == "decode_error"
        if index % 4 == 2:
            return decode_image(warning_tiff(), max_pixels=4).rgb.shape == (2, 2, 3)
        decoded = decode_image(SAMPLES[name], max_pixels=height * width)
        return np.array_equal(decoded.rgb, good[name])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(600)))
    assert images._max_pixels_here.get() is None


def test_the_warning_filter_is_installed_once():
    with warnings.catch_warnings():
        for _ in range(5):
            decode_image(SAMPLES["png"])
        assert sum(entry is images._QUIET for entry in warnings.filters[:3]) == 1


# Files


def test_read_bytes(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a.bin", max_bytes=5) == b"12345"
    assert read_bytes(str(tmp_path / "a.bin")) == b"12345"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nothing.jpg", "missing"),
        ("a.bin/inside.jpg", "missing"),
        ("", "decode_error"),  # the directory
        ("pipe", "decode_error"),
        ("nu\0ll", "decode_error"),
        ("x" * 300, "decode_error"),
        ("a.bin", "too_large"),
    ],
)
def test_read_bytes_errors(tmp_path, path, status):
    (tmp_path / "a.bin").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError) as caught:
        read_bytes(tmp_path / path, max_bytes=4)
    assert caught.value.status == status
    assert re.fullmatch(r"[\w\s(),.:]{5,200}", str(caught.value))
    assert str(tmp_path) not in str(caught.value)


def test_reading_and_decoding(tmp_path):
    (tmp_path / "a.webp").write_bytes(SAMPLES["webp animated"])
    assert decode_image(read_bytes(tmp_path / "a.webp")).rgb.shape == smooth().shape
