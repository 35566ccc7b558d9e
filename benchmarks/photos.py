"""The photos that are measured when none are named."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def given_or_default(photos: Sequence[Path] | None) -> Iterator[list[Path]]:
    """These photos, or those in scikit-image's wheel as files that exist meanwhile."""
    if photos:
        yield list(photos)
        return
    # Not at the top: processes that measure memory import this module too.
    from pipelines.demo import write_photos  # noqa: PLC0415

    with TemporaryDirectory() as folder:
        write_photos(Path(folder))
        yield sorted(Path(folder).glob("*.png"))
