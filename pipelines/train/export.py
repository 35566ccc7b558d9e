"""Write a trained model as the built-in one: float16 safetensors with its origin inside.

python -m pipelines.train.export --state work/nano/state.pt
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from amg.models.zoo.checkpoint import save_weights
from pipelines.train.trainer import trained_model


def main(
    state: Annotated[Path, typer.Option(help="state.pt of a training.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("nano.safetensors"),
) -> None:
    """Export the weights."""
    progress = torch.load(state, weights_only=True, map_location="cpu")["progress"]
    metadata = {"model": "nano", **{name: str(value) for name, value in progress.items()}}
    save_weights(trained_model(state), out, metadata, half=True)


if __name__ == "__main__":
    typer.run(main)
