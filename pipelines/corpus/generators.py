"""What segments a run's images: a model of the configuration, in the generator that asks it.

A worker that is given another segmenter starts without torch.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from amg.config import Config
from amg.records import EmbeddingDtype
from pipelines.corpus.messages import MakeGenerator, Segmenter

if TYPE_CHECKING:
    from amg.generate.generator import MaskGenerator
    from amg.models.interface import PromptableModel


def default_generator(
    *, has_prompts: bool, embed_dtype: EmbeddingDtype | None = None
) -> MakeGenerator:
    """What makes the segmenters of a run: of embeddings, from prompts, or of a grid."""
    if embed_dtype is not None:
        return partial(make_embedder, dtype=embed_dtype)
    return make_prompted if has_prompts else make_generator


def make_generator(config: Config, heartbeat: Callable[[], None] = lambda: None) -> "MaskGenerator":
    """Load the model of a configuration, and put a generator around it."""
    from amg.generate.generator import MaskGenerator  # noqa: PLC0415 - see above

    return MaskGenerator(_load(config), config.generator, heartbeat=heartbeat)


def _load(config: Config) -> "PromptableModel":
    import torch  # noqa: PLC0415 - see above

    from amg.models.zoo.load import load_model  # noqa: PLC0415

    wanted = config.model
    model = load_model(
        wanted.name,
        checkpoint=wanted.checkpoint,
        device=wanted.device,
        imgsz=wanted.imgsz,
        precision=wanted.precision,
        compile=wanted.compile,
    )
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # a process is one worker's: what is lost, is lost here
    return model


def make_prompted(config: Config, heartbeat: Callable[[], None] = lambda: None) -> Segmenter:
    """Load the model of a configuration, to be asked by prompts."""
    from amg.predict.prompted_generator import PromptedGenerator  # noqa: PLC0415 - see above

    return PromptedGenerator(
        _load(config),
        config.generator,
        multimask_output=config.run.multimask,
        heartbeat=heartbeat,
    )


def make_embedder(
    config: Config, heartbeat: Callable[[], None] = lambda: None, *, dtype: EmbeddingDtype
) -> Segmenter:
    """Load the model of a configuration, of which its encoder is wanted."""
    from amg.generate.embedder import Embedder  # noqa: PLC0415 - see above

    return Embedder(_load(config), config.generator, dtype=dtype, heartbeat=heartbeat)
