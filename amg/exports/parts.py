"""Exporting a run, part by part: what was interrupted goes on where it was."""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from amg.errors import OutputError, RleError
from amg.exports.folder import Folder
from amg.exports.names import Names
from amg.exports.rendering import Document, Format, Origin, Picture, Records
from amg.exports.walk import Selection, Walk, to_picture
from amg.runs.results import RunResults
from amg.runs.watching import OnImages

logger = logging.getLogger(__name__)
_SHOWN = 10


@dataclass(slots=True)
class ExportReport:
    """Counts of an export; `failed` are images without masks to export, by their status.

    `notes` says how often something was lost that the format cannot say; `refused` counts images
    that it could not take at all, and `problems` has the first of them.
    """

    images: int = 0
    masks: int = 0
    masks_left_out: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: "ExportReport") -> None:
        """Add the counts of another part."""
        self.images += other.images
        self.masks += other.masks
        self.masks_left_out += other.masks_left_out
        self.failed = dict(Counter(self.failed) + Counter(other.failed))
        self.notes = dict(Counter(self.notes) + Counter(other.notes))
        self.refused += other.refused
        self.problems = [*self.problems, *other.problems][:_SHOWN]


class Export:
    """One run's masks on their way into a folder, in one format."""

    def __init__(
        self,
        run: RunResults,
        kind: type[Format],
        options: Any,
        folder: Path,
        selection: Selection,
    ) -> None:
        self._run = run
        self._folder = Folder(folder)
        model = str(run.plan.identity.get("model", {}).get("name", "unknown"))
        plan, names = run.plan, Names(run.planned_ids())
        origin = Origin(plan.run_id, model, names, plan.categories, plan.has_uncategorised)
        self._format = kind(options, origin)
        if selection.max_masks_per_image is None:
            limit = {"max_masks_per_image": self._format.max_masks_per_image}
            selection = selection.model_copy(update=limit)
        self._selection = selection
        size = self._format.images_per_file or run.plan.images_per_shard
        self._walk = Walk(run, size, selection.limit)
        self._documents = self._format.documents()
        self._separators = {
            piece.name: piece.separator
            for document in self._documents
            for piece in document.pieces
            if isinstance(piece, Records)
        }

    def execute(self, progress: OnImages = lambda done, total: None) -> ExportReport:
        """Do what is not done yet, and give the counts of all.

        Raises OutputError if the folder holds something else, StorageError where it cannot be
        written, ShardError for a run that is damaged.
        """
        identity = {
            "format": type(self._format).__name__,
            "run": self._run.plan.fingerprint,
            "options": self._format.options.model_dump(mode="json"),
            "selection": self._selection.model_dump(mode="json"),
        }
        with self._folder.claimed(identity):
            state = self._state()
            names = [*self._joint_files(), *chain.from_iterable(map(self._files_of, self._parts()))]
            counts = self._folder.finished(state, names)
            if counts is not None:
                return ExportReport(**counts)
            return self._go_on(state, progress)

    def _go_on(self, state: Sequence[str], progress: OnImages) -> ExportReport:
        report = ExportReport()
        parts = self._parts()
        for part in parts:
            report.add(self._ensure_part(part, progress))
            progress(self._walk.rows_of(part).stop, self._walk.n_images)
        for name, document in self._joint_files().items():
            self._folder.compose(document, parts, name)
        if self._run.is_complete:  # else what is done is kept for what is still to come
            self._folder.finish(state, asdict(report))
        return report

    def _ensure_part(self, part: int, progress: OnImages) -> ExportReport:
        state = self._walk.state_of(part)
        files = self._files_of(part)
        counts = self._folder.done(part, state, files)
        if counts is not None:
            return ExportReport(**counts)
        report = self._export_part(part, progress)
        for name, document in files.items():
            self._folder.compose(document, [part], name)
        self._folder.finish_part(part, state, asdict(report))
        if self._format.images_per_file:
            self._folder.forget(part, list(self._separators))
        return report

    def _export_part(self, part: int, progress: OnImages) -> ExportReport:
        report, n_before = ExportReport(), dict.fromkeys(self._separators, 0)
        with self._folder.records(part, list(self._separators)) as files:
            for number, first_id, row in self._walk(part):
                picture = to_picture(number, first_id, row, self._selection)
                if picture is None:
                    report.add(ExportReport(failed={row.status: 1}))
                    continue
                report.add(self._export_picture(picture, len(row.masks), files, n_before))
                progress(number, self._walk.n_images)
        return report

    def _export_picture(
        self,
        picture: Picture,
        n_masks: int,
        files: Mapping[str, Any],
        n_before: dict[str, int],
    ) -> ExportReport:
        """Write a picture's files, then its records: one that is refused leaves none of these."""
        try:
            rendering = self._format.render(picture)
            for name, data in rendering.files:
                self._folder.write(name, data)
        except (OutputError, RleError) as error:
            problem = f"{picture.image_id}: {error}"
            logger.warning("not exported: %s", problem)
            return ExportReport(refused=1, problems=[problem])
        for name, records in rendering.records.items():
            for record in records:
                files[name].write(self._separators[name] * (n_before[name] > 0) + record)
                n_before[name] += 1
        n_kept = len(picture.masks)
        return ExportReport(1, n_kept, n_masks - n_kept, notes=dict(rendering.notes))

    def _parts(self) -> list[int]:
        """The parts of which something is there."""
        return [part for part in range(self._walk.n_parts) if self._walk.state_of(part)]

    def _files_of(self, part: int) -> dict[str, Document]:
        """The files that a part has of its own."""
        own = filter(self._in_parts, self._documents)
        return {_numbered(document.name, part): document for document in own}

    def _joint_files(self) -> dict[str, Document]:
        """The files that are made of all parts."""
        return {d.name: d for d in self._documents if not self._in_parts(d)}

    def _in_parts(self, document: Document) -> bool:
        has_records = any(isinstance(piece, Records) for piece in document.pieces)
        return has_records and self._format.images_per_file is not None

    def _state(self) -> list[str]:
        """What there is of the run, in short."""
        digest = hashlib.sha256()
        for part in range(self._walk.n_parts):
            digest.update("\n".join(self._walk.state_of(part)).encode())
        return [digest.hexdigest()]


def _numbered(name: str, part: int) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{part:05d}{dot}{suffix}"
