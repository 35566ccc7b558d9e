"""Measurements as Markdown tables, for people."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from benchmarks.record import OURS, Parity, PhotoRow, Rates
from benchmarks.setting import Setting


def headline(setting: Setting) -> str:
    """Say what was measured where."""
    weights = "" if setting.weights_sha256 else " with random weights"
    packages = ", ".join(f"{name} {number}" for name, number in setting.versions.items())
    return (
        f"{setting.date[:10]}, commit {setting.commit}: {setting.model}{weights}, input "
        f"{setting.imgsz}, {' '.join(setting.overrides)}\n"
        f"{setting.machine}, load {setting.load:.1f} before; {packages}"
    )


def head(peers: Sequence[str]) -> str:
    """The head of a table of photos: ours in seconds and MB, then each peer in multiples of it."""
    columns = ["photo", "MP", "ours, s", "ours, MB", "ours: masks"]
    for peer in peers:
        columns += [f"{peer}: time", "memory", "masks"]
    return f"{_line(columns)}\n{_line(['---'] * len(columns))}"


def photo_line(row: PhotoRow, peers: Sequence[str], reference: str | None) -> str:
    """One photo."""
    ours = row.entries[OURS]
    cells = [row.photo, f"{row.megapixels:.2f}", f"{ours.seconds:.2f}", f"{ours.peak_mb:.0f}"]
    cells.append(str(ours.n_masks) if row.parity is None else _say(row.parity))
    for peer in peers:
        masks = str(row.entries[peer].n_masks)
        if reference is not None and peer != reference:
            n_all = row.entries[reference].n_masks
            masks += f", {row.entries[peer].n_found} of {reference}'s {n_all}"
        cells += [f"{row.times_faster(peer):.1f} x", f"{row.times_smaller(peer):.1f} x", masks]
    return _line(cells)


def means_line(rows: Sequence[PhotoRow], peers: Sequence[str]) -> str:
    """The geometric means of all multiples."""
    cells = ["geometric mean", "", "", "", ""]
    for peer in peers:
        cells += [
            f"{_geometric_mean(row.times_faster(peer) for row in rows):.1f} x",
            f"{_geometric_mean(row.times_smaller(peer) for row in rows):.1f} x",
            "",
        ]
    return _line(cells)


def stages_table(stages: Mapping[str, float]) -> str:
    """Seconds and share of each stage."""
    whole_s = sum(stages.values())
    lines = [_line(["stage", "s", "share"]), _line(["---"] * 3)]
    lines += [
        _line([stage, f"{seconds:.3f}", f"{seconds / whole_s:.0%}"])
        for stage, seconds in stages.items()
    ]
    return "\n".join(lines)


def total_stages(rows: Iterable[PhotoRow]) -> dict[str, float]:
    """Seconds in each stage over all photos that were profiled; empty if none was."""
    total: dict[str, float] = {}
    for row in rows:
        for stage, seconds in (row.stages or {}).items():
            total[stage] = total.get(stage, 0.0) + seconds
    return total


def rates_table(rates: Rates) -> str:
    """What a device does in a second, and the memory it takes."""
    prompts_per_s = rates.decoder_prompts_per_s
    lines = [
        ["what", "a second", "ms an image"],
        ["---"] * 3,
        ["whole generator, images", *_per_second(rates.images_per_s)],
        ["encoder alone, images", *_per_second(rates.encoder_images_per_s)],
        [
            "decoder alone, prompts",
            f"{prompts_per_s:.0f}",
            f"{1e3 * rates.prompts_per_image / prompts_per_s:.1f}",
        ],
    ]
    memory = f"peak {rates.peak_mb:.0f} MB, of which weights {rates.weights_mb:.0f} MB"
    return "\n".join(map(_line, lines)) + f"\n\n{memory}; {rates.n_masks} masks"


def parity_table(parity: Mapping[str, Parity]) -> str:
    """Masks on a device beside those on the CPU, by photo."""
    lines = [["photo", "nano on the device and on the CPU"], ["---"] * 2]
    lines += [[photo, _say(compared)] for photo, compared in parity.items()]
    return "\n".join(map(_line, lines))


def _per_second(rate: float) -> tuple[str, str]:
    return f"{rate:.2f}", f"{1e3 / rate:.1f}"


def _say(parity: Parity) -> str:
    """How equal our masks are to the reference's."""
    n_ours, n_reference = parity.n_ours, parity.n_reference
    count = n_ours if n_ours == n_reference else f"{n_ours} for {n_reference}"
    verdict = "exact" if parity.exact else f"NOT EXACT, least IoU {parity.min_iou:.4f}"
    return f"{count}, {parity.n_identical} identical, {verdict}"


def _geometric_mean(ratios: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log(list(ratios)))))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
