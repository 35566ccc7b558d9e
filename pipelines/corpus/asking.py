"""What a worker asks of an image: the points of a grid, or a run's prompts."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amg.prompts.checks import in_pixels, problem_of
from amg.records import Embedding, Prompt
from amg.runs.schema import PromptError
from pipelines.corpus.messages import HasBytes

logger = logging.getLogger(__name__)
Image = np.ndarray | Embedding
"""(H, W, 3) uint8 RGB, or what was kept of it."""


@dataclass(frozen=True, slots=True)
class Question:
    """An image on its way to the model: None where nothing is to be asked of it.

    Of runs from prompts, `prompts` are asked, and `errors` are those that cannot be.
    """

    image: HasBytes | None
    prompts: tuple[Prompt, ...] | None = None
    errors: tuple[PromptError, ...] | None = None


@dataclass(frozen=True, slots=True)
class Unprepared:
    """An image or its embedding, and its prompts, which could not be prepared in a thread."""

    image: Image
    prompts: tuple[Prompt, ...]

    @property
    def nbytes(self) -> int:
        """What the pixels take."""
        return self.image.nbytes


def ask_grid(prepare: Callable[[Image], HasBytes], image: Image) -> Question:
    """The question of a run without prompts: its generator takes an image also as it is."""
    return Question(_prepared(lambda: prepare(image), image))


def ask_prompts(
    prepare: Callable[[Image, Sequence[Prompt]], HasBytes],
    planned: Sequence[tuple[Prompt, bool]],
    image: Image,
) -> Question:
    """The question of an image's planned prompts, some of them in shares of its size."""
    size_hw = image.size_hw if isinstance(image, Embedding) else (image.shape[0], image.shape[1])
    prompts, errors = [], []
    for prompt, is_share in planned:
        wanted = in_pixels(prompt, size_hw) if is_share else prompt
        problem = problem_of(wanted, size_hw)
        if problem is None:
            prompts.append(wanted)
        else:
            errors.append(PromptError(prompt.prompt_id, problem))
    asked = None
    if prompts:
        asked = _prepared(lambda: prepare(image, prompts), Unprepared(image, tuple(prompts)))
    return Question(asked, tuple(prompts), tuple(errors))


def _prepared(prepare: Callable[[], HasBytes], otherwise: HasBytes) -> HasBytes:
    try:
        return prepare()
    # Whatever it is, it comes again where the image is segmented, and there makes a row.
    except Exception:
        logger.debug("an image could not be prepared", exc_info=True)
        return otherwise


def prepared_again(image: Any, prepare: Callable[..., HasBytes]) -> Any:
    """What the generator takes; raises what preparing an image has raised before."""
    return prepare(image.image, image.prompts) if isinstance(image, Unprepared) else image


def unanswered(prompts: Sequence[Prompt], answered: Sequence[Prompt | None]) -> list[PromptError]:
    """The prompts that no mask is an answer to: a filter may have left none."""
    ids = {prompt.prompt_id for prompt in answered if prompt is not None}
    return [PromptError(p.prompt_id, "no mask was kept") for p in prompts if p.prompt_id not in ids]
