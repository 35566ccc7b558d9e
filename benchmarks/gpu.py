"""What one device does with a model: the whole generator, and its encoder and decoder alone.

    python -m benchmarks.gpu [PHOTO...] [--model sam_vit_h] [--checkpoint FILE] [--device cuda]

Without a checkpoint a published model has random weights of its shape, biased so that half of all
candidates pass: right for time, but for run lengths, since few such shapeless masks survive NMS.
The largest photo is timed, at SA-1B's size; on all of them `nano` is compared with itself on the
CPU. `README.md` beside this says what else the machine must have. One process, no Ray, no network.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from amg.config import GeneratorConfig, load_config
from amg.evaluate.parity import compare_annotations
from amg.generate.crops import Crop
from amg.generate.generator import MaskGenerator
from amg.generate.points import crop_points
from amg.inputs.images import decode_image
from amg.inputs.reading import read_bytes
from amg.models.families.sam import SAMModel
from amg.models.precision import products_in
from amg.models.zoo.load import load_model
from benchmarks import table
from benchmarks.memory import forget_peak, peak_mb
from benchmarks.photos import given_or_default
from benchmarks.random_model import let_half_pass, random_model
from benchmarks.record import RESULTS, DeviceRun, Parity, Rates, append
from benchmarks.setting import complete, describe, load_average
from benchmarks.stages import now, profile_stages

_BUILT_IN = "nano"


def main(
    photos: Annotated[list[Path] | None, typer.Argument()] = None,
    model: Annotated[str, typer.Option()] = "sam_vit_h",
    checkpoint: Annotated[Path | None, typer.Option()] = None,
    imgsz: Annotated[int | None, typer.Option(help="Side of the model's input, in pixels.")] = None,
    device: Annotated[str, typer.Option()] = "cuda",
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    short_side: Annotated[int, typer.Option(help="Of the timed photo, in pixels.")] = 1500,
    seconds: Annotated[float, typer.Option(help="Measure each rate for so long.")] = 10.0,
    to_append: Annotated[bool, typer.Option("--append", help="Keep the results.")] = False,
    results: Annotated[Path, typer.Option(help="Where to keep them.")] = RESULTS,
) -> None:
    """Print rates, stages and parity as Markdown tables."""
    overrides = complete(set_)
    config = load_config(overrides=overrides)
    load = load_average()
    with given_or_default(photos) as paths:
        images = {path.name: decode_image(read_bytes(path)).rgb for path in paths}
    image = _scaled(max(images.values(), key=np.size), short_side)

    if checkpoint is None and model != _BUILT_IN:
        sam = random_model(model, imgsz, device)
        generator = MaskGenerator(sam, let_half_pass(sam, image, config.generator))
    else:
        sam = load_model(model, checkpoint=checkpoint, device=device, imgsz=imgsz)
        generator = MaskGenerator(sam, config.generator)
    setting = describe(model, sam.info.weights_sha256, sam.imgsz, device, overrides, load)
    typer.echo(f"{table.headline(setting)}\n")
    rates = measure_rates(sam, generator, image, config.run.images_per_batch, seconds)
    typer.echo(table.rates_table(rates))
    stages = profile_stages(sam, lambda: generator.generate(image))
    typer.echo(f"\n{table.stages_table(stages)}\n")
    parity = compare_with_cpu(images, device, config.generator)
    typer.echo(table.parity_table(parity))
    if to_append:
        height, width, _ = image.shape
        append(results, DeviceRun(setting, (height, width), rates, stages, parity))


@torch.inference_mode()
def measure_rates(
    model: SAMModel,
    generator: MaskGenerator,
    image: np.ndarray,
    images_per_batch: int,
    seconds: float,
) -> Rates:
    """Rates over one image (H, W, 3) uint8: batches of it for generator and encoder.

    What the CPU does to it first is not in them: in a run that is done beside them.
    """
    allowance, threshold = generator.allowance, generator.config.pred_iou_thresh
    batch = [generator.prepare(image)] * images_per_batch  # as a run's reading threads do
    forget_peak(model.device)
    images_per_s = _rate(lambda: generator.generate_batch(batch), len(batch), seconds)
    peak = peak_mb(model.device)

    pixels, (frame, *_) = model.preprocess([image] * allowance.encoder_batch_size)
    points_xy = crop_points(Crop((0, 0, *image.shape[1::-1]), 0), generator.config)
    at_once = allowance.points_per_batch
    with products_in(model.precision):
        features = model.encode(pixels)[0]
        encoder_images_per_s = _rate(lambda: model.encode(pixels), len(pixels), seconds)
        decoder_prompts_per_s = _rate(
            lambda: list(model.decode(features, frame, points_xy, threshold, at_once)),
            len(points_xy),
            seconds,
        )
    return Rates(
        images_per_s=images_per_s,
        encoder_images_per_s=encoder_images_per_s,
        decoder_prompts_per_s=decoder_prompts_per_s,
        prompts_per_image=len(points_xy),
        weights_mb=sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6,
        peak_mb=peak,
        n_masks=len(generator.generate(image).masks),
    )


def compare_with_cpu(
    images: Mapping[str, np.ndarray], device: str, config: GeneratorConfig
) -> dict[str, Parity]:
    """The built-in model's masks on a device beside those on the CPU, by image."""
    here, there = (
        MaskGenerator(load_model(_BUILT_IN, device=place), config) for place in ("cpu", device)
    )
    found = {}
    for name, image in images.items():
        report = compare_annotations(
            *(generator.generate(image).to_annotations() for generator in (here, there))
        )
        found[name] = Parity.of(report)
    return found


def _rate(work: Callable[[], Any], n: int, seconds: float) -> float:
    """How many of n things that `work` does are done in a second, after a first time."""
    work()
    started = now()
    elapsed_s, rounds = 0.0, 0
    while elapsed_s < seconds or not rounds:
        work()
        rounds += 1
        elapsed_s = now() - started
    return n * rounds / elapsed_s


def _scaled(image: np.ndarray, short_side: int) -> np.ndarray:
    height, width, _ = image.shape
    scale = short_side / min(height, width)
    size = round(width * scale), round(height * scale)
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


if __name__ == "__main__":
    typer.run(main)
