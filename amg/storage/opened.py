"""A file that is open for reading, whose failures are our errors."""

import io
from collections.abc import Callable
from typing import IO, Any

from amg.errors import StorageError


class OpenFile(io.RawIOBase):
    """Wraps an open file, so that libraries above cannot blur what went wrong.

    `explain` makes our error of one that the file raises; `where` names it. `size_bytes` is None
    where the storage does not tell.
    """

    def __init__(
        self,
        file: IO[bytes],
        where: str,
        explain: Callable[[Exception], Exception],
        *,
        size_bytes: int | None,
        is_local: bool,
    ) -> None:
        super().__init__()
        self._file, self._where, self._explain = file, where, explain
        self.size_bytes = size_bytes
        self.is_local = is_local
        """Whether the file is on this machine, and has a descriptor."""

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer, less at the end of the file.

        Raises StorageError, or what `explain` gives, if the file fails or gives less than it has.
        """
        view = memoryview(buffer)
        try:
            at = self._file.tell()
            data = self._file.read(len(view))
        except Exception as error:  # every storage has its own
            raise self._explain(error) from None
        if self.size_bytes is not None and len(data) < min(len(view), self.size_bytes - at):
            raise StorageError(f"{self._where}: {len(data)} bytes at {at}, cut short")
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place; io.UnsupportedOperation where a server sends from the start only."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError) as error:
            raise io.UnsupportedOperation("the server gives no ranges of this file") from error

    def tell(self) -> int:
        """The place in the file, in bytes."""
        return self._file.tell()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always: a server without ranges is found out by `seek`."""
        return True

    def fileno(self) -> int:
        """The descriptor of a local file."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file below too."""
        if not self.closed:
            self._file.close()
        super().close()
