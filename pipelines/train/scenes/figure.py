"""A figure: the pieces of one object in its unit frame, before it is placed and dressed."""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.outlines import Outline


@dataclass(frozen=True)
class Piece:
    """Outlines filled together as their union; with `hollow` one inside another is a hole.

    `part` is the part of the figure it belongs to and `skin` the look that fills it; `tone` scales
    brightness, `relief` (0..1) how round it is lit, `rag` (0..1) how ragged its border is; with
    `each` every outline is a part of its own, numbered from `part`.
    """

    outlines: tuple[Outline, ...]
    part: int = 0
    skin: int = 0
    tone: float = 1.0
    relief: float = 0.5
    rag: float = 0.0
    each: bool = False
    hollow: bool = False


@dataclass(frozen=True)
class Figure:
    """Pieces in painting order. `dress` names the texture of each skin and `hues` its colours.

    `aspect` is width over height; `whole` says its parts are too plain to be told apart, so that
    all pieces share part 0 and skin 0.
    """

    pieces: tuple[Piece, ...]
    dress: tuple[str, ...] = ("any",)
    hues: tuple[str, ...] = ("any",)
    aspect: float = 1.0
    whole: bool = False
    shadow: float = 1.0


# Colour ranges that suit any made thing.
HUES = ("any", "grey", "pale", "warm", "loud", "blue", "brown", "dark")

Maker = Callable[[Dice], Figure]


def piece(
    outline: Outline,
    part: int = 0,
    skin: int = 0,
    tone: float = 1.0,
    relief: float = 0.5,
    rag: float = 0.0,
) -> Piece:
    """A piece of a single outline."""
    return Piece((outline,), part, skin, tone, relief, rag)
