"""Train the built-in model `nano` on procedural scenes.

    python -m pipelines.train --out work/nano --scenes 120000

goes through the phases of a recipe (`recipes.py`), by default that for a CPU. The image encoder
begins with a trunk that has seen photographs (`pip install '.[train]'`):

1. neck: all but the trunk learn to draw what a point or a box means, and to score it;
2. middle: the whole model;
3. large: the same at the size the model runs at;
4. settle: at a rate that falls to nothing.

A checkpoint every minute makes it resumable: the same command goes on where it stopped.
Processes share each batch; on a CPU, one for each core, of one thread, is faster than one of many
threads. `--compile` makes a CPU's steps shorter by a quarter, where a C++ compiler is at hand.

`snapshot.safetensors` is what a training on two cores had come to after 30,000 scenes; `--init
pipelines/train/snapshot.safetensors` goes on from there. It is not yet the model that is built in.

On from the present weights, on a GPU whose calls end after ten minutes, again and again:

    python -m pipelines.train --recipe gpu --scenes 1000000 --call-minutes 9 --out work/nano
        --init nano.safetensors --device cuda --scene-workers 15
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from torch.multiprocessing.spawn import spawn

from pipelines.train.recipes import RECIPES
from pipelines.train.trainer import Settings, train


def main(
    out: Annotated[Path, typer.Option(help="Folder for the training state.")],
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "cpu",
    scenes: Annotated[int, typer.Option(help="Scenes of all phases together.")] = 120_000,
    call_minutes: Annotated[
        float | None, typer.Option(help="Save and stop after this long; the next call goes on.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that share each batch, on a CPU.")] = 1,
    scene_workers: Annotated[int, typer.Option(help="Processes that make each one's scenes.")] = 1,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the model first.")] = False,
    init: Annotated[Path | None, typer.Option(help="Weights to begin with, not at random.")] = None,
) -> None:
    """Train the built-in model, or go on with a training that was stopped."""
    if recipe not in RECIPES:
        raise typer.BadParameter(f"{recipe!r} is none of {', '.join(RECIPES)}")
    settings = Settings(
        out, recipe, scenes, seed, device, scene_workers, call_minutes, compile, world=workers
    )
    with tempfile.TemporaryDirectory() as folder:
        spawn(train, (settings, init, f"{folder}/rendezvous"), nprocs=workers)


if __name__ == "__main__":
    typer.run(main)
