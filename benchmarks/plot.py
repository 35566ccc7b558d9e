"""Draw what was kept of measurements: how many times faster, and where our time goes.

    python -m benchmarks.plot [RESULTS] [--out FOLDER]

Writes `speed.svg` and `stages.svg`. Of runs of the same thing on the same machine the last counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import typer
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from benchmarks.record import RESULTS, DeviceRun, Run, SpeedRun, read
from benchmarks.setting import Setting
from benchmarks.stages import OTHER, STAGES
from benchmarks.table import total_stages

_FOLDER = Path(__file__).parent
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")
_DASHES = ("-", "--", ":", "-.")
_STAGE_COLOURS = dict(zip((*STAGES, OTHER), (*_COLOURS[:5], "#bbbbbb"), strict=True))
_LABEL_WIDTH = 32  # in letters
_LEAST_SHARE_IN_WORDS = 0.06
_CENTRED = {"ha": "center", "va": "center", "fontsize": 8}
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    # The same drawing is the same file.
    "svg.hashsalt": "amg",
}


def main(
    results: Annotated[Path, typer.Argument()] = RESULTS,
    out: Annotated[Path, typer.Option(help="Folder for the drawings.")] = _FOLDER,
) -> None:
    """Draw the kept results."""
    runs = read(results)
    for name, draw in (("speed", draw_speed), ("stages", draw_stages)):
        path = out / f"{name}.svg"
        save(draw, runs, path)
        typer.echo(path)


def save(draw: Callable[[Sequence[Run]], Figure], runs: Sequence[Run], path: Path) -> None:
    """Draw runs into a file; its suffix chooses the format."""
    with rc_context(_STYLE):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        draw(runs).savefig(path, dpi=200, metadata=metadata)


def draw_speed(runs: Sequence[Run]) -> Figure:
    """Times faster over megapixels: a colour for each measured thing, a dash for each peer."""
    latest = _latest(run for run in runs if isinstance(run, SpeedRun))
    peers = list(dict.fromkeys(peer for run in latest for peer in run.peers))
    figure, axes = _axes(height_in=4.5)
    for run, label, colour in _labelled(latest):
        rows = sorted(run.photos, key=lambda row: row.megapixels)
        megapixels = [row.megapixels for row in rows]
        for peer in run.peers:
            axes.plot(
                megapixels,
                [row.times_faster(peer) for row in rows],
                color=colour,
                linestyle=_DASHES[peers.index(peer) % len(_DASHES)],
                marker="o",
                markersize=3.5,
                linewidth=1.4,
                label=f"{label}, beside {peer}",
            )
    axes.axhline(1, color="#888888", linewidth=0.8)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="megapixels of the photo",
        ylabel="times faster than the peer",
    )
    for axis in (axes.xaxis, axes.yaxis):
        _plain_numbers(axis)
    axes.grid(True, linewidth=0.6)
    if axes.lines[1:]:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.15))  # labels may be long
    return figure


def draw_stages(runs: Sequence[Run]) -> Figure:
    """A bar of our stages' shares for each measured thing, with its seconds an image."""
    profiled = _labelled([run for run in _latest(runs) if _stages(run)])
    figure, axes = _axes(height_in=1.3 + 0.6 * len(profiled))
    for place, (run, _, _) in enumerate(profiled):
        seconds = _stages(run)
        _draw_bar(axes, place, seconds)
        axes.text(1.01, place, f"{sum(seconds.values()):.3g} s an image", va="center", fontsize=8)
    labels = [fill(label, _LABEL_WIDTH) for _, label, _ in profiled]
    axes.set_yticks(range(len(profiled)), labels)
    axes.set(xlim=(0, 1), ylim=(len(profiled) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(
        handles=[Patch(color=colour, label=stage) for stage, colour in _STAGE_COLOURS.items()],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(_STAGE_COLOURS),
        handlelength=1,
    )
    return figure


def _draw_bar(axes: Any, place: int, seconds: Mapping[str, float]) -> None:
    left = 0.0
    for stage, colour in _STAGE_COLOURS.items():
        share = seconds[stage] / sum(seconds.values())
        axes.barh(place, share, left=left, height=0.62, color=colour)
        if share >= _LEAST_SHARE_IN_WORDS:
            axes.text(left + share / 2, place, f"{share:.0%}", color="white", **_CENTRED)
        left += share


def _axes(height_in: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8, height_in), layout="constrained")
    return figure, figure.add_subplot()


def _plain_numbers(axis: Any) -> None:
    """1, 2, 5, 10 on a logarithmic axis, not powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _stages(run: Run) -> dict[str, float]:
    """Seconds an image in each stage; empty for a run that was not profiled."""
    if isinstance(run, DeviceRun):
        return dict(run.stages)
    n_images = sum(bool(row.stages) for row in run.photos)
    return {stage: seconds / n_images for stage, seconds in total_stages(run.photos).items()}


def _latest(runs: Iterable[Any]) -> list[Any]:
    """The last run of each thing on each machine, in the order of the file."""
    return list({(run.kind, *_identity(run.setting)): run for run in runs}.values())


def _identity(setting: Setting) -> tuple[str, ...]:
    """What distinguishes measurements, in words."""
    return (
        f"{setting.model}, {setting.imgsz} px",
        " ".join(override.removeprefix("generator.") for override in setting.overrides),
        setting.machine.gpu or f"{setting.machine.cpu}, {setting.machine.threads} threads",
    )


def _labelled(runs: Sequence[Any]) -> list[tuple[Any, str, str]]:
    """Each run with a label, of what differs between them, and a colour."""
    identities = [_identity(run.setting) for run in runs]
    differing = [i for i in range(1, 3) if len({identity[i] for identity in identities}) > 1]
    return [
        (run, ", ".join(identity[i] for i in (0, *differing)), _COLOURS[place % len(_COLOURS)])
        for place, (run, identity) in enumerate(zip(runs, identities, strict=True))
    ]


if __name__ == "__main__":
    typer.run(main)
