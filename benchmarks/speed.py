"""Time our generator beside its peers: same weights, same photos, array to COCO RLE.

    python -m benchmarks.speed [PHOTO...] [--model nano] [--imgsz 1024] [--set generator.key=value]

Each has a process of its own that holds its model; a photo is given to one after the other.
Without photos: those in scikit-image's wheel. Peak memory is the whole process's, model, libraries
and photo included; on a GPU that of its tensors. `README.md` beside this says how to read it all.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from amg.evaluate.parity import compare_annotations, count_found
from amg.models.zoo.registry import locate_weights
from benchmarks import table
from benchmarks.contender import Contender, Job, Measurement
from benchmarks.peers import choose_peers
from benchmarks.photos import given_or_default
from benchmarks.record import OURS, RESULTS, Entry, Parity, PhotoRow, SpeedRun, append
from benchmarks.setting import complete, describe, load_average


def main(
    photos: Annotated[list[Path] | None, typer.Argument()] = None,
    model: Annotated[str, typer.Option()] = "nano",
    checkpoint: Annotated[Path | None, typer.Option()] = None,
    imgsz: Annotated[int | None, typer.Option(help="Side of the model's input, in pixels.")] = None,
    device: Annotated[str, typer.Option()] = "cpu",
    set_: Annotated[list[str] | None, typer.Option("--set", help="generator.key=value")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="Not all of them, but this one.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 1,
    stages: Annotated[bool, typer.Option(help="Profile ours by stage, once a photo.")] = True,
    to_append: Annotated[bool, typer.Option("--append", help="Keep the results.")] = False,
    results: Annotated[Path, typer.Option(help="Where to keep them.")] = RESULTS,
) -> None:
    """Print a line for each photo, as a Markdown table."""
    overrides = complete(set_)
    job = Job(model, checkpoint, imgsz, device, overrides)
    peers = choose_peers(model, peer)
    names = tuple(p.name for p in peers)
    reference = next((p.name for p in peers if p.is_reference), None)
    _, weights = locate_weights(model, checkpoint)
    load = load_average()
    with given_or_default(photos) as paths, ExitStack() as processes:
        contenders = {
            name: processes.enter_context(closing(Contender(name, job))) for name in (OURS, *names)
        }
        setting = describe(
            model,
            weights.sha256,
            contenders[OURS].imgsz,
            device,
            overrides,
            load,
            [p.package for p in peers],
        )
        typer.echo(f"{table.headline(setting)}\n\n{table.head(names)}")
        rows = []
        for path in paths:
            rounds = [_round(contenders, path) for _ in range(repeats)]
            seconds = contenders[OURS].profile(path) if stages else None
            rows.append(summarise(path.name, rounds, reference, seconds))
            typer.echo(table.photo_line(rows[-1], names, reference))
    typer.echo(table.means_line(rows, names))
    if stages:
        typer.echo(f"\n{table.stages_table(table.total_stages(rows))}")
    if to_append:
        append(results, SpeedRun(setting, repeats, names, reference, tuple(rows)))


def _round(contenders: Mapping[str, Contender], photo: Path) -> dict[str, Measurement]:
    return {name: contender.measure(photo) for name, contender in contenders.items()}


def summarise(
    photo: str,
    rounds: Sequence[Mapping[str, Measurement]],
    reference: str | None,
    stages: Mapping[str, float] | None,
) -> PhotoRow:
    """One photo's row of the rounds' median times, highest peaks, and first masks."""
    first = rounds[0]
    expected = first[reference].annotations if reference is not None else None
    entries = {
        name: Entry(
            seconds=median(measured[name].seconds for measured in rounds),
            peak_mb=max(measured[name].peak_mb for measured in rounds),
            n_masks=len(first[name].annotations),
            n_found=None if expected is None else count_found(expected, first[name].annotations),
        )
        for name in first
    }
    parity = None
    if expected is not None:
        parity = Parity.of(compare_annotations(expected, first[OURS].annotations))
    return PhotoRow(photo, first[OURS].size_hw, entries, parity, stages)


if __name__ == "__main__":
    typer.run(main)
