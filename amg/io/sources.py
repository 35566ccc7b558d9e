"""What a run reads: image files, and folders of them."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amg.errors import ConfigError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif")
)
_DUPLICATES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One planned image: its id in the results, unique in a run, and where its bytes are."""

    image_id: str
    path: Path

    @property
    def uri(self) -> str:
        """The path as text that any reader can decode."""
        return _as_text(str(self.path))


def find_images(inputs: Sequence[str | Path]) -> list[ImageSource]:
    """List the images behind files and folders, in a stable order.

    A file is taken whatever its name, with its name as id. A folder gives the files below it whose
    suffix is an image's, sorted, with the path relative to the folder as id.

    Raises ConfigError for an input that does not exist, inputs without any image, or ids that
    occur twice.
    """
    sources = [source for item in inputs for source in _expand(Path(item))]
    if not sources:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise ConfigError(f"inputs: no image in {', '.join(map(str, inputs))} ({suffixes})")
    counts = Counter(source.image_id for source in sources)
    twice = [image_id for image_id, n in counts.items() if n > 1]
    if twice:
        shown = ", ".join(repr(image_id) for image_id in twice[:_DUPLICATES_SHOWN])
        raise ConfigError(
            f"inputs: {len(twice)} image ids occur more than once: {shown}; give the folder above"
        )
    return sources


def _expand(path: Path) -> Iterator[ImageSource]:
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"inputs: {str(path)!r}: {error.strerror or error}") from error
    if not is_folder:
        yield ImageSource(_as_text(path.name), path)
        return
    for found in _walk(path):
        yield ImageSource(_as_text(found.relative_to(path).as_posix()), found)


def _walk(folder: Path) -> Iterator[Path]:
    """Image files below a folder, sorted; links to folders are not followed, so loops cannot be.

    Raises ConfigError for a folder that cannot be listed: its images must not be lost in silence.
    """
    for root, folders, files in os.walk(folder, onerror=_refuse):
        folders.sort()
        yield from (
            Path(root, name)
            for name in sorted(files)
            if Path(name).suffix.lower() in IMAGE_SUFFIXES
        )


def _refuse(error: OSError) -> None:
    raise ConfigError(f"inputs: {error.filename!r}: {error.strerror}") from error


def _as_text(path: str) -> str:
    """Show the bytes of a path that are not UTF-8 as escapes: Parquet holds valid text only."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
