"""What is kept of a measurement: one line of JSON a run, in `results.jsonl`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from amg.evaluate.parity import ParityReport
from benchmarks.setting import Setting

RESULTS = Path(__file__).with_name("results.jsonl")
OURS = "ours"


@dataclass(frozen=True, slots=True)
class Entry:
    """One generator on one photo. `n_found`: how many of the reference's masks are among its own.

    `n_found` is None where no reference ran.
    """

    seconds: float
    peak_mb: float
    n_masks: int
    n_found: int | None


@dataclass(frozen=True, slots=True)
class Parity:
    """Our masks beside the reference's, as `amg.evaluate.parity` compares them."""

    exact: bool
    n_reference: int
    n_ours: int
    n_identical: int
    min_iou: float

    @staticmethod
    def of(report: ParityReport) -> "Parity":
        """What is kept of a comparison."""
        return Parity(
            report.exact, report.n_reference, report.n_ours, report.n_identical, report.min_iou
        )


@dataclass(frozen=True, slots=True)
class PhotoRow:
    """One photo by all generators, by name; `stages` are our seconds in each, if profiled."""

    photo: str
    size_hw: tuple[int, int]
    entries: Mapping[str, Entry]
    parity: Parity | None
    stages: Mapping[str, float] | None

    @property
    def megapixels(self) -> float:
        """Of the photo."""
        return self.size_hw[0] * self.size_hw[1] / 1e6

    def times_faster(self, peer: str) -> float:
        """The peer's time over ours."""
        return self.entries[peer].seconds / self.entries[OURS].seconds

    def times_smaller(self, peer: str) -> float:
        """The peer's memory over ours."""
        return self.entries[peer].peak_mb / self.entries[OURS].peak_mb


@dataclass(frozen=True, slots=True)
class SpeedRun:
    """A run of `benchmarks.speed`. `peers` beside ours; `reference` is the one of them to equal.

    Seconds are medians of `repeats` rounds.
    """

    setting: Setting
    repeats: int
    peers: tuple[str, ...]
    reference: str | None
    photos: tuple[PhotoRow, ...]
    kind: Literal["speed"] = "speed"


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device does in a second, and the memory of the whole generator, weights included.

    `n_masks` is how many masks the timed image has.
    """

    images_per_s: float
    encoder_images_per_s: float
    decoder_prompts_per_s: float
    prompts_per_image: int
    weights_mb: float
    peak_mb: float
    n_masks: int


@dataclass(frozen=True, slots=True)
class DeviceRun:
    """A run of `benchmarks.gpu`: rates, and the seconds of our stages, on one image.

    `parity` is that of the built-in model on the device with itself on the CPU, by photo.
    """

    setting: Setting
    image_hw: tuple[int, int]
    rates: Rates
    stages: Mapping[str, float]
    parity: Mapping[str, Parity]
    kind: Literal["device"] = "device"


Run = SpeedRun | DeviceRun
_LINE: TypeAdapter[Run] = TypeAdapter(Annotated[Run, Field(discriminator="kind")])


def append(path: Path, run: Run) -> None:
    """Add a run to a file, which is made if there is none."""
    with path.open("ab") as file:
        file.write(_LINE.dump_json(run) + b"\n")


def read(path: Path) -> list[Run]:
    """All runs of a file, oldest first. Raises ValueError for a line that is none."""
    return [_LINE.validate_json(line) for line in path.read_bytes().splitlines()]
