"""Image files made from nothing but Pillow, numpy and struct."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, features

HAS_AVIF = features.check("avif")


def encode(image: Image.Image, format_name: str, **options) -> bytes:
    """The file as bytes; images are copied, for `save` leaves settings of its format on them."""
    buffer = io.BytesIO()
    if "append_images" in options:
        options["append_images"] = [frame.copy() for frame in options["append_images"]]
    image.copy().save(buffer, format_name, **options)
    return buffer.getvalue()


def noise(height: int = 13, width: int = 17, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int = 24, width: int = 32) -> np.ndarray:
    """A picture without symmetry that lossy formats keep well."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (x * 255 / (width - 1), y * 255 / (height - 1), (x + 2 * y) * 2)
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def png(
    width: int,
    height: int,
    *,
    depth: int,
    colour: int,
    pixels: bytes = b"",
    chunks: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """A PNG of raw rows (each `len(pixels) // height` bytes), `chunks` before the data."""
    stride = len(pixels) // height
    rows = b"".join(
        b"\0" + pixels[y * stride : (y + 1) * stride] for y in range(height if stride else 0)
    )
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


def tiff(
    width: int,
    height: int,
    pixels: bytes,
    *,
    bits: tuple[int, ...],
    photometric: int = 1,
    order: str = "<",
    tags: dict[int, int | tuple[int, ...]] | None = None,
) -> bytes:
    """An uncompressed TIFF of one strip; `tags` are added to, or replace, the usual ones."""
    offset = 8
    entries: dict[int, int | tuple[int, ...]] = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: offset,
        277: len(bits),
        278: height,
        279: len(pixels),
    }
    entries |= tags or {}
    pixels += b"\0" * (len(pixels) % 2)
    extra_at = offset + len(pixels) + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack(order + "H", len(entries)), b""
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, tuple) else (value,)
        code, kind = ("H", 3) if max(values) < 2**16 else ("I", 4)
        body = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(body) > 4:
            body, extra = struct.pack(order + "I", extra_at + len(extra)), extra + body
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    start = struct.pack(order + "I", offset + len(pixels))
    return magic + start + pixels + directory + b"\0\0\0\0" + extra


def gif(screen_wh: tuple[int, int], frame_wh: tuple[int, int], data: bytes = b"") -> bytes:
    """A GIF of two colours whose first frame may be larger than the screen."""
    return (
        struct.pack("<6sHHBBB", b"GIF89a", *screen_wh, 0x80, 0, 0)
        + b"\x00\x00\x00\xff\x80\x40"
        + struct.pack("<cHHHHB", b",", 0, 0, *frame_wh, 0)
        + b"\x02"
        + (bytes([len(data)]) + data if data else b"")
        + b"\0;"
    )


def claiming(format_name: str, width: int, height: int) -> bytes:
    """A small file of a format whose header claims a size."""
    if format_name == "PNG":
        return png(width, height, depth=8, colour=2)
    if format_name == "GIF":
        return gif((width, height), (1, 1))
    if format_name == "TIFF":
        return tiff(width, height, b"\0" * 12, bits=(8, 8, 8), photometric=2)
    if format_name == "BMP":
        head = struct.pack("<2sIHHIIiiHH", b"BM", 54, 0, 0, 54, 40, width, height, 1, 24)
        return head + b"\0" * 24 + b"\0" * 100
    if format_name == "WEBP":
        size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
        return b"RIFF" + struct.pack("<I", len(body)) + body
    whole = encode(Image.new("RGB", (8, 8)), "JPEG")
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + struct.pack(">HH", height, width) + whole[at + 4 :]


def samples() -> dict[str, bytes]:
    """One small whole file of every kind that matters to a decoder."""
    rgb, rgba = Image.fromarray(smooth()), Image.fromarray(noise(channels=4))
    grey16 = Image.fromarray(np.arange(13 * 17, dtype=np.uint16).reshape(13, 17) * 290)
    other = Image.fromarray(smooth()[::-1].copy())
    exif = Image.Exif()
    exif[274] = 6
    files = {
        "jpeg": encode(rgb, "JPEG", exif=exif.tobytes()),
        "jpeg progressive": encode(rgb, "JPEG", progressive=True, quality=90),
        "jpeg cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "mpo": encode(rgb, "MPO", save_all=True, append_images=[other]),
        "png": encode(rgb, "PNG", exif=exif.tobytes()),
        "png palette": encode(rgb.quantize(16), "PNG", transparency=b"\x00\x80\xff"),
        "png 16": encode(grey16, "PNG"),
        "apng": encode(rgb, "PNG", save_all=True, append_images=[other]),
        "webp": encode(rgb, "WEBP"),
        "webp lossless": encode(rgba, "WEBP", lossless=True, exif=exif.tobytes()),
        "webp animated": encode(rgb, "WEBP", save_all=True, append_images=[other]),
        "tiff": encode(rgba, "TIFF"),
        "tiff lzw": encode(rgb, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": encode(rgb, "TIFF", compression="jpeg"),
        "tiff pages": encode(rgb, "TIFF", save_all=True, append_images=[other]),
        "tiff 16": tiff(17, 13, grey16.tobytes(), bits=(16,), tags={274: 8}),
        "bmp": encode(rgb, "BMP"),
        "bmp palette": encode(rgb.quantize(16), "BMP"),
        "gif": encode(rgb.quantize(32), "GIF", transparency=3),
        "gif animated": encode(rgb, "GIF", save_all=True, append_images=[other]),
    }
    if HAS_AVIF:
        files["avif"] = encode(rgb, "AVIF", exif=exif.tobytes())
        files["avif alpha"] = encode(rgba, "AVIF", quality=90)
    return files
