"""Bytes to RGB uint8, with limits.

What is read
- JPEG (of an MPO, the first picture), PNG, WEBP, TIFF, BMP, GIF and AVIF, through Pillow; HEIF
  where `pillow_heif` is installed. No other Pillow plugin is reached (EPS would run ghostscript).
- The first frame of an animation or of a file of many pages.
- Only whole files: a truncated one is an error, never a picture that is grey from some row on.
- The header comes first: more than `max_pixels`, in the picture or in one tile of a TIFF, is
  "too_large" before a pixel is decoded. `max_pixels` alone decides, whatever the process made of
  Pillow's limits. (libavif refuses above MAX_PIXELS by itself: such an AVIF is a "decode_error".)

What becomes of the pixels
- EXIF orientation is applied, all eight values; damaged EXIF is ignored (but libavif
  refuses an AVIF whose EXIF does not begin as it must).
- Alpha is composited over white: RGBA, LA, PA, palettes with transparency, colour keys.
- 16-bit grey is divided by 257 and rounded; 12-bit grey by 4095 / 255. Of 16-bit colour, and of
  its key, Pillow keeps the high byte of each sample: at most one level from the same rule.
- 32-bit grey and signed 16-bit grey (I): values all in 0..65535 are taken as 16-bit, others are
  scaled linearly, lowest to 0 and highest to 255. Floats (F): all in 0..1 times 255, others from
  lowest to highest, NaN and infinities black. A constant picture outside that range is black.
- CMYK, YCbCr, LAB, HSV, palettes, grey and bilevel become RGB by Pillow's plain formulas.
  ICC profiles are ignored: the original SAM tooling works on plain pixel values too.

Everything else is an `ImageError`, whatever the decoder raised. Decoders' warnings are neither
printed nor raised (but libtiff writes a line on a damaged file to C's stderr, out of reach from
here). Two hooks, in force only inside `decode_image` and only for the thread that runs it, see to
that and to the limit: Pillow's bomb check, which asks `max_pixels` there, and a warning filter
(which another thread that resets `warnings.filters` at that moment can lift). What threads share,
`Image.MAX_IMAGE_PIXELS` and `warnings.catch_warnings`, is not used.
"""

import logging
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from amg.errors import ImageError

FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"]
with suppress(ImportError):
    import pillow_heif  # pyright: ignore[reportMissingImports]

    pillow_heif.register_heif_opener()
    FORMATS.append("HEIF")

MAX_PIXELS = 2**28
"""16384 x 16384: any WEBP, any camera. Takes 2 GB, 3 GB if turned; WEBP and AVIF take more."""

logging.getLogger("PIL").addHandler(logging.NullHandler())  # or Python prints them to stderr

_BAND_ROWS = 64
_TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
_UPRIGHT_BY = {i: Image.Transpose[name] for i, name in enumerate(_TURNS.split(), start=2)}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # TIFF and EXIF tags
_TILE_WIDTH, _TILE_LENGTH, _SAMPLE_FORMAT = 322, 323, 339


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright picture: `rgb` (H, W, 3) uint8, C-contiguous, and Pillow's mode of the file."""

    rgb: NDArray[np.uint8]
    source_mode: str


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, admit: Callable[[int], None] = lambda _: None
) -> DecodedImage:
    """Decode an image file held in memory by the rules at the top of this module.

    admit: is told the bytes of the result once they are known, before the pixels are decoded; it
    may wait until there is room.

    Raises ImageError alone: "too_large" above `max_pixels`, "decode_error" for everything else.
    Its message is one line without file contents or name. Safe in threads.
    """
    if not data:
        raise ImageError("decode_error", "empty file (0 bytes)")
    if ImageFile.LOAD_TRUNCATED_IMAGES:  # another library's doing, and not ours to undo
        message = "cannot tell truncated files while PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on"
        raise ImageError("decode_error", message)
    format_name = "image"
    try:
        with _under_our_limits(max_pixels), Image.open(BytesIO(data), formats=FORMATS) as image:
            format_name = image.format or format_name
            _check_size(image.size, max_pixels)
            if tags := getattr(image, "tag_v2", {}):
                _check_tiff(data, tags, max_pixels)
            admit(3 * image.width * image.height)
            source_mode, rgb = image.mode, _decode(image, tags)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("decode_error", "unknown image format, or damaged header") from error
    except Exception as error:
        # Decoders of damaged files raise whatever they stumble over: OSError, SyntaxError,
        # ValueError, struct.error, KeyError, MemoryError, RecursionError, ... One bad file
        # among millions must become a row, so nothing is let through but an interrupt.
        raise ImageError("decode_error", _describe(format_name, error)) from error
    return DecodedImage(rgb, source_mode)


def convert_image(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an image of Pillow's, (H, W, 3): by the same rules, but not turned.

    Raises ImageError "decode_error" for a file that Pillow cannot read to its end.
    """
    tags, key = getattr(image, "tag_v2", {}), _colour_key(image)
    try:
        image.load()
        return _to_rgb(image, tags, key)
    except Exception as error:  # as in decode_image
        raise ImageError("decode_error", _describe(image.mode, error)) from error


def _describe(format_name: str, error: Exception) -> str:
    """One short ASCII line; what an error quotes may come from the file and is left out."""
    text = re.sub(r"b?(['\"]).*?(\1|$)", "?", str(error), flags=re.DOTALL)
    text = re.sub(r"[^!-~]+", " ", text)
    return f"{format_name}: {type(error).__name__}: {text}".rstrip(": ")[:200]


_max_pixels_here: ContextVar[int | None] = ContextVar("_max_pixels_here", default=None)


def _check_size(size_wh: tuple[int, int], max_pixels: int, what: str = "image") -> None:
    width, height = size_wh
    if width * height > max_pixels:
        message = f"{what} of {width} x {height} pixels, the limit is {max_pixels}"
        raise ImageError("too_large", message)


def _check_tiff(data: bytes, tags: Mapping[int, Any], max_pixels: int) -> None:
    """What Pillow lets pass: a small picture in a huge tile, and a directory that is cut short."""
    _check_size((tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)), max_pixels, "TIFF tile")
    order, big = "<" if data.startswith(b"II") else ">", 43 in data[2:4]
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    if at + (8 + 20 * count if big else 2 + 12 * count) > len(data):
        raise ImageError("decode_error", "TIFF: image file directory is truncated")


_pillow_check = Image._decompression_bomb_check


def _check_for_pillow(size: tuple[int, int], *args: Any, **kwargs: Any) -> None:
    """Pillow's bomb check: `max_pixels` inside `decode_image`, Pillow's own rule elsewhere.

    Plugins call it where only they know the size before memory is taken: WEBP before its
    decoder is made, GIF when a frame outgrows the screen, TIFF before the canvas.
    """
    max_pixels = _max_pixels_here.get()
    if max_pixels is None:
        _pillow_check(size, *args, **kwargs)
    else:
        _check_size(size, max_pixels)


Image._decompression_bomb_check = _check_for_pillow


class _InsideDecodeImage:
    """Has the place of a message pattern in a warning filter: matches by thread, not by text."""

    def match(self, _text: str) -> bool:
        return _max_pixels_here.get() is not None


_QUIET = ("ignore", _InsideDecodeImage(), Warning, None, 0)


@contextmanager
def _under_our_limits(max_pixels: int) -> Iterator[None]:
    """Put both hooks in force for this thread (see the module's docstring)."""
    filters = cast("list[Any]", warnings.filters)
    if not filters or filters[0] is not _QUIET:  # a filter in front of it, "error" say, would win
        filters.insert(0, _QUIET)
    token = _max_pixels_here.set(max_pixels)
    try:
        yield
    finally:
        _max_pixels_here.reset(token)


def _decode(image: ImageFile.ImageFile, tags: Mapping[int, Any]) -> NDArray[np.uint8]:
    """Load, turn upright, and convert by bands of rows, so that no step costs a full copy."""
    key = _colour_key(image)
    image.load()
    return _to_rgb(_upright(image), tags, key)


def _to_rgb(
    upright: Image.Image, tags: Mapping[int, Any], key: int | tuple[int, ...] | None
) -> NDArray[np.uint8]:
    convert = partial(_rgb_of_band, key=key)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
        convert = partial(_grey_of_deep, tags=tags, key=key, value_range=_deep_range(upright, tags))
    rgb = np.empty((upright.height, upright.width, 3), np.uint8)
    for top, bottom, band in _bands(upright):
        rgb[top:bottom] = convert(band)
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    """Turn by the EXIF orientation (a TIFF has been turned by Pillow's load)."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF raises anything; the pixels are good without it
        orientation = 1
    method = _UPRIGHT_BY.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _bands(image: Image.Image) -> Iterator[tuple[int, int, Image.Image]]:
    """(top, bottom, those rows as an image), from top to bottom."""
    for top in range(0, image.height, _BAND_ROWS):
        bottom = min(top + _BAND_ROWS, image.height)
        yield top, bottom, image.crop((0, top, image.width, bottom))


def _rgb_of_band(band: Image.Image, key: int | tuple[int, ...] | None) -> NDArray[np.uint8]:
    """8-bit pixels of any mode to (h, W, 3), or (h, W, 1) where all is grey."""
    if key is not None:
        pixels = np.atleast_3d(np.asarray(band if band.mode == "RGB" else band.convert("L")))
        is_key = (pixels == np.asarray(key)).all(axis=-1, keepdims=True)
        return np.where(is_key, np.uint8(255), pixels)
    if band.has_transparency_data:
        rgba = band.convert("LA" if band.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
        return np.asarray(white)
    return np.asarray(band if band.mode == "RGB" else band.convert("RGB"))


def _grey_of_deep(
    band: Image.Image,
    tags: Mapping[int, Any],
    key: int | tuple[int, ...] | None,
    value_range: tuple[float, float],
) -> NDArray[np.uint8]:
    """16- and 32-bit grey to (h, W, 1): lowest of `value_range` to 0, highest to 255."""
    values = _deep_values(band, tags)
    low, high = value_range
    above = np.where(np.isfinite(values), values, low).astype(np.float64) - low
    grey = np.rint(above * 255 / (high - low or 1)).clip(0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # zero is white: Pillow turns only 8-bit grey round
        grey = 255 - grey
    if key is not None:
        grey[values == key] = 255
    return grey[..., None]


def _deep_range(image: Image.Image, tags: Mapping[int, Any]) -> tuple[float, float]:
    """The values that become 0 and 255: nominal for 16 bits, else see the module's docstring."""
    if image.mode.startswith("I;16"):
        return 0, 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    nominal = 1.0 if image.mode == "F" else 65535.0
    low, high = np.inf, -np.inf
    for _, _, band in _bands(image):
        values = _deep_values(band, tags)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (0, nominal) if low >= 0 and high <= nominal else (low, high)


def _deep_values(band: Image.Image, tags: Mapping[int, Any]) -> NDArray[Any]:
    values = np.asarray(band)
    unsigned = band.mode == "I" and bool(tags) and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1
    return values.view(np.uint32) if unsigned else values  # Pillow wraps unsigned 32-bit round


def _colour_key(image: Image.Image) -> int | tuple[int, ...] | None:
    """The one transparent colour of a picture without alpha or palette, in its pixels' units.

    To be asked before `load`, which forgets how the samples are packed.
    """
    key = image.info.get("transparency")
    tile = getattr(image, "tile", None)  # of a file that has not been decoded
    raw_mode = tile[0].args if tile else None
    if image.mode == "RGB" and isinstance(key, tuple):
        return tuple(sample >> 8 for sample in key) if raw_mode == "RGB;16B" else key
    if image.mode in ("1", "L", "I", "I;16") and isinstance(key, int):
        # Pillow stretches 2- and 4-bit grey to 0..255, but not the key.
        return key * (85 if raw_mode == "L;2" else 17 if raw_mode == "L;4" else 1)
    return None
