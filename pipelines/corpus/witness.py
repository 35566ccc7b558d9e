"""Is it one image that cannot be read, or is it all of them? A witness tells.

An image whose storage fails, again and again, is a row that says so: `unreachable`. But where
nothing can be read at all, a mount or a network is gone, and rows would say it a million times. The
difference is a witness: another image that can be read at the same time. The driver finds one
before the run begins; a worker remembers the last that it has read itself.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeVar

from amg.errors import AmgError, ImageError, StorageError
from amg.inputs.folders import looks_like_image
from amg.inputs.reading import read_source
from amg.inputs.sources import ImageSource
from amg.storage.retry import INPUT_WAITS_S, read_with_backoff, with_backoff
from amg.storage.urls import from_bytes, is_web, place_of
from pipelines.corpus.patience import Patience

logger = logging.getLogger(__name__)
_PROBES, _PROBES_AT_ONCE = 16, 4  # some may be large
_PROBING_S = 20.0
_PATIENCE_S = 120.0
_MOST_BYTES = 2**27
_FRESH_S = 5.0
"""What was just seen is believed for so long."""
_TRUSTED_S = 600.0
"""A place that has given an image in this time is asked with all patience."""
_IMPATIENT_AFTER = 2
"""Images in a row that another place did not give: the next are asked for once each."""
_REST_AFTER = 32
"""And after so many, none is asked for during `_REST_S`: a host that is dead for ever."""
_REST_S = 60.0
_PLACES_KEPT = 1024
Value = TypeVar("Value")


class InputsGoneError(StorageError):
    """A place whose images cannot be read, not even `witness`, which it has given before."""

    def __init__(
        self, message: str, *, passing: bool = True, witness: ImageSource | None = None
    ) -> None:
        super().__init__(message, passing=passing)
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return _make_inputs_gone, (str(self), self.passing, self.witness)


def _make_inputs_gone(
    message: str, passing: bool, witness: ImageSource | None
) -> "InputsGoneError":
    return InputsGoneError(message, passing=passing, witness=witness)


def find_witness(
    sources: Sequence[ImageSource], allow: Sequence[str] | None = None
) -> ImageSource | None:
    """One of some images that can be read here and now; None if none can, in time.

    None is decoded: an image that kills a decoder must find a worker, not a driver. A mount that
    hangs keeps its threads for ever, and nobody waits for them, not even the end of the process.
    """
    left: SimpleQueue[ImageSource] = SimpleQueue()
    answers: SimpleQueue[ImageSource | None] = SimpleQueue()
    for source in sources:
        left.put(source)

    def probe() -> None:
        with suppress(Empty):
            while True:
                source, is_found = left.get_nowait(), False
                try:
                    is_found = can_be_read(source, allow)
                finally:
                    answers.put(source if is_found else None)

    for _ in range(min(_PROBES_AT_ONCE, len(sources))):
        threading.Thread(target=probe, name="witness", daemon=True).start()
    ends_at = time.monotonic() + _PROBING_S
    with suppress(Empty):
        for _ in sources:
            found = answers.get(timeout=max(0.0, ends_at - time.monotonic()))
            if found is not None:
                return found
        return None
    logger.info("none of %d images could be read in %g s", len(sources), _PROBING_S)
    return None


def spread(n_images: int) -> Iterable[int]:
    """Rows of a plan to look for a witness at, all over it."""
    return sorted({i * n_images // _PROBES for i in range(_PROBES)})


def can_be_read(source: ImageSource, allow: Sequence[str] | None = None) -> bool:
    """Whether an image can be read, and begins as one, asked once."""
    try:
        return looks_like_image(read_source(source, _MOST_BYTES, allow=allow)[:32])
    except ImageError as error:
        return error.status == "too_large"  # it is there, which is all that is asked
    except AmgError as error:
        logger.info("%s: %s", source.image_id, error)
        return False


class RunInputs:
    """Whether a run's inputs can be read at all, as its driver sees it."""

    def __init__(self, witness: ImageSource | None, allow: Sequence[str] | None) -> None:
        self._witness, self._allow = witness, allow
        self._asked_for = witness
        self._patience = Patience(_PATIENCE_S)

    def has_witness(self) -> bool:
        """Whether the image that could be read before the run still can."""
        return self._can_be_read(self._witness)

    def _can_be_read(self, source: ImageSource | None) -> bool:
        return source is not None and find_witness([source], self._allow) is not None

    def worked(self) -> None:
        """Somebody has read some."""
        self._patience.worked()

    def are_there(self) -> bool:
        """Whether it makes sense to give out work: of inputs that were gone, one is asked for."""
        if self._patience.is_tried and self._patience.is_due:
            self._look()
        return self._patience.is_due

    def are_gone(self, error: InputsGoneError) -> bool:
        """Whether what a worker met is so here too. Raises StorageError if it is for too long.

        Of several places one may be gone: it is that one which is looked at, now and later.
        """
        self._asked_for = error.witness or self._witness
        if self._look():
            return False
        self._patience.failed(error)
        return True

    def _look(self) -> bool:
        found = self._can_be_read(self._asked_for)
        if found:
            self._patience.worked()
        return found


class InputReader:
    """Reads a worker's images, patiently, and tells an image's own fault from everybody's.

    Safe in threads. witness: an image that the driver could read. allow: see `read_source`.
    """

    def __init__(self, witness: ImageSource | None, allow: Sequence[str] | None = None) -> None:
        self._allow = allow
        self._lock = threading.Lock()
        self._given: OrderedDict[str, _Given] = OrderedDict()
        """Of each place the last image that it gave; the place that gave one last is last."""
        self._withheld: OrderedDict[str, _Withheld] = OrderedDict()
        """Places that have given nothing since: they are asked with less and less patience."""
        self._first_witness = witness
        if witness is not None:
            self._given[_place(witness)] = _Given(witness, float("-inf"))

    def read(self, source: ImageSource) -> bytes:
        """The bytes of an image.

        Raises ImageError for what is the image's own fault, InputsGoneError where no other can be
        read either.
        """
        place = _place(source)
        try:
            data = self._try(source, place)
        except ImageError:
            self._gives_again(place)
            raise
        except StorageError as error:
            if not isinstance(error, _NotAskedError):
                self._withholds(place, str(error))
            other = self._other_than(source, place)
            if other is not None and self._can_still_read(other):
                raise ImageError("unreachable", str(error)) from error
            gone = other and other.source
            raise InputsGoneError(str(error), passing=error.passing, witness=gone) from error
        self._gives_again(place, source)
        return data

    def has_witness(self) -> bool:
        """Whether an image that could be read before still can."""
        with self._lock:
            given = next(reversed(self._given.values()), None)
        witnesses = {self._first_witness, given and given.source} - {None}
        return any(
            can_be_read(witness, self._allow) for witness in witnesses if witness is not None
        )

    def _try(self, source: ImageSource, place: str) -> bytes:
        with self._lock:
            n, at, reason = self._withheld.get(place, _NOTHING_WITHHELD)
            given = self._given.get(place)
        if given is not None and time.monotonic() - given.at < _TRUSTED_S:
            n = 0  # it is down for a while, and each of its images is asked for in earnest
        if n >= _REST_AFTER and time.monotonic() - at < _REST_S:
            raise _NotAskedError(f"not asked for, after {n} images in a row; the last: {reason}")
        if n >= _IMPATIENT_AFTER:
            return self._ask(source)
        return read_with_backoff(lambda: self._ask(source))

    def _ask(self, source: ImageSource) -> bytes:
        return read_source(source, allow=self._allow)

    def _other_than(self, source: ImageSource, place: str) -> "_Given | None":
        """What was read last: of an object store or this machine, of the same.

        A list of web addresses names many hosts, and one of them may be dead for ever.
        """
        with self._lock:
            given = None if is_web(place) else self._given.get(place)
            given = given or next(reversed(self._given.values()), None)
        return None if given is None or given.source == source else given

    def _can_still_read(self, given: "_Given") -> bool:
        if time.monotonic() - given.at < _FRESH_S:
            return True
        try:
            with_backoff(lambda: self._ask(given.source), INPUT_WAITS_S[:1])
        except AmgError as error:
            logger.warning("nor can %s be read: %s", given.source.image_id, error)
            return False
        self._gives_again(_place(given.source), given.source)
        return True

    def _gives_again(self, place: str, source: ImageSource | None = None) -> None:
        with self._lock:
            self._withheld.pop(place, None)
            if source is not None:
                _put_last(self._given, place, _Given(source, time.monotonic()))

    def _withholds(self, place: str, reason: str) -> None:
        with self._lock:
            n_images = self._withheld.get(place, _NOTHING_WITHHELD).n_images
            _put_last(self._withheld, place, _Withheld(n_images + 1, time.monotonic(), reason))


class _Given(NamedTuple):
    source: ImageSource
    at: float


class _Withheld(NamedTuple):
    n_images: int
    at: float
    reason: str


_NOTHING_WITHHELD = _Withheld(0, 0.0, "")


class _NotAskedError(StorageError):
    """A place rests, which has given nothing for long."""


def _put_last(places: OrderedDict[str, Value], place: str, value: Value) -> None:
    """Remember it as the newest; of very many places the oldest are forgotten."""
    places[place] = value
    places.move_to_end(place)
    if len(places) > _PLACES_KEPT:
        places.popitem(last=False)


def _place(source: ImageSource) -> str:
    return place_of(from_bytes(source.path))
