"""A run: from inputs and a configuration to shards and a report, in this process."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import yaml

from amg.config import Config
from amg.errors import ConfigError, ShardError
from amg.generate.generator import MaskGenerator
from amg.io.schema import FAILED, ImageRow
from amg.io.shards import ShardWriter
from amg.io.sources import ImageSource, find_images
from amg.models.registry import load_model
from pipelines.worker import Worker


@dataclass
class RunReport:
    """What a run has done so far, and in the end: numbers that add over shards."""

    images: int = 0
    masks: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Images whose row has a reason instead of masks."""
        return sum(n for status, n in self.statuses.items() if status in FAILED)

    def add(self, row: ImageRow) -> None:
        """Count a finished row."""
        self.images += 1
        self.masks += len(row.masks)
        self.statuses[row.status] = self.statuses.get(row.status, 0) + 1


def make_generator(config: Config) -> MaskGenerator:
    """Load the model of a configuration, and put a generator around it."""
    model = config.model
    return MaskGenerator(
        load_model(model.name, checkpoint=model.checkpoint, device=model.device, imgsz=model.imgsz),
        config.generator,
    )


class Run:
    """One run over `inputs` into the folder `out`.

    Raises ConfigError for inputs that are not there, an output folder that holds another run, or
    a model that does not exist.
    """

    def __init__(
        self,
        inputs: Sequence[str | Path],
        out: Path,
        config: Config,
        *,
        limit: int | None = None,
        overwrite: bool = False,
    ) -> None:
        self.out, self.config = out, config
        self.sources = find_images(inputs)[:limit]
        if self.shard_paths() and not overwrite:
            raise ConfigError(
                f"out: {str(out)!r} holds the shards of a run; --overwrite replaces them"
            )

    def execute(self, on_row: Callable[[ImageRow], None] = lambda _: None) -> RunReport:
        """Segment every image and write every row; `on_row` hears of each as it is done.

        Raises CheckpointError and ConfigError before any work, ShardError where it cannot write.
        """
        generator = make_generator(self.config)
        worker = Worker(generator, self.config.run)
        self._prepare_out(generator)
        started = time.monotonic()
        report = RunReport()
        for index, sources in enumerate(self._split()):
            with ShardWriter(self._shard_path(index), self._metadata(generator, index)) as shard:
                for row in worker.rows(sources):
                    shard.write(row)
                    report.add(row)
                    on_row(row)
        report.seconds = time.monotonic() - started
        _write_text(self.out / "report.json", json.dumps(asdict(report), indent=2) + "\n")
        return report

    def _split(self) -> list[list[ImageSource]]:
        size = self.config.run.images_per_shard
        return [self.sources[i : i + size] for i in range(0, len(self.sources), size)]

    def _shard_path(self, index: int) -> Path:
        return self.out / "data" / f"part-{index:05d}.parquet"

    def shard_paths(self) -> list[Path]:
        """The shards that are in the output folder."""
        return sorted((self.out / "data").glob("part-*.parquet"))

    def _prepare_out(self, generator: MaskGenerator) -> None:
        """Clear the shards of an earlier run, and write the configuration as it is in force."""
        try:
            for path in self.shard_paths():
                path.unlink()
            (self.out / "report.json").unlink(missing_ok=True)
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ShardError(f"{self.out}: cannot be prepared: {error}") from error
        resolved = self.config.model_copy(update={"generator": generator.config})
        text = yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False)
        _write_text(self.out / "config.yaml", text)

    def _metadata(self, generator: MaskGenerator, shard_index: int) -> dict[str, str]:
        """Where a shard's masks come from, for its file's metadata."""
        info = generator.model.info
        return {
            "amg.version": version("amg"),
            "amg.shard": str(shard_index),
            "amg.model": info.name,
            "amg.weights_sha256": info.weights_sha256 or "",
            "amg.generator": generator.config.model_dump_json(),
        }


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ShardError(f"{path}: cannot be written: {error}") from error
