"""What a worker asks of an image: the points of a grid, or a run's prompts."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amg.prompts.checks import in_pixels, problem_of
from amg.records import Prompt
from amg.runs.schema import PromptError
from pipelines.corpus.messages import HasBytes

logger = logging.getLogger(__name__)


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
    """An image (H, W, 3) uint8 RGB and its prompts, which could not be prepared in a thread."""

    rgb: np.ndarray
    prompts: tuple[Prompt, ...]

    @property
    def nbytes(self) -> int:
        """What the pixels take."""
        return self.rgb.nbytes


def ask_grid(prepare: Callable[[np.ndarray], HasBytes], rgb: np.ndarray) -> Question:
    """The question of a run without prompts: its generator takes an image also as it is."""
    return Question(_prepared(lambda: prepare(rgb), rgb))


def ask_prompts(
    prepare: Callable[[np.ndarray, Sequence[Prompt]], HasBytes],
    planned: Sequence[tuple[Prompt, bool]],
    rgb: np.ndarray,
) -> Question:
    """The question of an image's planned prompts, some of them in shares of its size."""
    size_hw = (rgb.shape[0], rgb.shape[1])
    prompts, errors = [], []
    for prompt, is_share in planned:
        asked = in_pixels(prompt, size_hw) if is_share else prompt
        problem = problem_of(asked, size_hw)
        if problem is None:
            prompts.append(asked)
        else:
            errors.append(PromptError(prompt.prompt_id, problem))
    image = None
    if prompts:
        image = _prepared(lambda: prepare(rgb, prompts), Unprepared(rgb, tuple(prompts)))
    return Question(image, tuple(prompts), tuple(errors))


def _prepared(prepare: Callable[[], HasBytes], otherwise: HasBytes) -> HasBytes:
    try:
        return prepare()
    # Whatever it is, it comes again where the image is segmented, and there makes a row.
    except Exception:
        logger.debug("an image could not be prepared", exc_info=True)
        return otherwise


def prepared_again(image: Any, prepare: Callable[..., HasBytes]) -> Any:
    """What the generator takes; raises what preparing an image has raised before."""
    return prepare(image.rgb, image.prompts) if isinstance(image, Unprepared) else image


def unanswered(prompts: Sequence[Prompt], answered: Sequence[Prompt | None]) -> list[PromptError]:
    """The prompts that no mask is an answer to: a filter may have left none."""
    ids = {prompt.prompt_id for prompt in answered if prompt is not None}
    return [PromptError(p.prompt_id, "no mask was kept") for p in prompts if p.prompt_id not in ids]
