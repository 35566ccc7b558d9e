"""What an export is made of: pictures go in, files and records come out.

A format turns one picture at a time into bytes, and knows nothing of runs, folders or what was done
before; `export.py` does the rest. What belongs in one file for all pictures comes as records, which
documents put together at the end.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from amg.exports.names import Names
from amg.records import Mask


@dataclass(frozen=True, slots=True)
class NumberedMask:
    """A mask and what it is called in every export, whatever is left out.

    `number` is its place in the row, from 1; `id` its place among all masks of the run, from 1.
    `parent_id` is the id of the smallest chosen mask that contains it, if the run looked for them.
    """

    number: int
    id: int
    mask: Mask
    parent_id: int | None


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a run and the masks of it that are wanted. `number` is its place, from 1."""

    number: int
    image_id: str
    uri: str
    size_hw: tuple[int, int]
    masks: tuple[NumberedMask, ...]


@dataclass(frozen=True, slots=True)
class Rendering:
    """A picture in some format.

    files: name in the export's folder and bytes, made one after the other as they are taken.
    records: what it adds to each of the format's joint lists.
    notes: how often something was lost that its user should know of.
    """

    files: Iterable[tuple[str, bytes]] = ()
    records: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Records:
    """The place in a document for a list of records."""

    name: str
    separator: bytes = b",\n"


@dataclass(frozen=True, slots=True)
class Document:
    """A file for all pictures: bytes, and places for records; `member` is its name inside a zip."""

    name: str
    pieces: Sequence[bytes | Records]
    member: str | None = None


class FormatOptions(BaseModel):
    """What a user may choose of a format; a class of its own for each."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Origin:
    """The run that an export is made of, and the numbers of its categories by name."""

    run_id: str
    model: str
    names: Names
    categories: Mapping[str, int] = field(default_factory=dict)
    has_uncategorised: bool = False

    def classes(self, label: str) -> dict[str, int]:
        """The classes by rising number; `label` is that of masks without a category, if any."""
        if not self.categories:
            return {label: 1}
        classes = dict(sorted(self.categories.items(), key=lambda item: item[1]))
        if self.has_uncategorised and label not in classes:
            classes[label] = max(classes.values()) + 1
        return classes


class Format(ABC):
    """One format: what it makes of a picture, and the documents that its records go to."""

    Options: ClassVar[type[FormatOptions]] = FormatOptions

    def __init__(self, options: Any, origin: Origin) -> None:
        self.options = options
        self.origin = origin

    @property
    def images_per_file(self) -> int | None:
        """Documents are made anew for so many planned images; None: one for all."""
        return None

    @property
    def max_masks_per_image(self) -> int | None:
        """How many its users can bear, where they have not said."""
        return None

    @abstractmethod
    def render(self, picture: Picture) -> Rendering:
        """The picture in this format. Raises OutputError where it cannot be said."""

    @abstractmethod
    def documents(self) -> list[Document]:
        """The files that are made of records."""
