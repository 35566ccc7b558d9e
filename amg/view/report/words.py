"""Numbers, times and sizes as people read them."""

import math
from datetime import UTC, datetime


def whole_number(value: float) -> str:
    """12,345."""
    return f"{round(value):,}"


def short_number(value: float) -> str:
    """950, 12k, 3.4M: three digits at most."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def score(value: float) -> str:
    """0.87."""
    return f"{value:.2f}"


def percent(share: float) -> str:
    """94.2 %; nothing is rounded to all or to none."""
    text = f"{100 * share:.1f}"
    if text == "100.0" and share < 1:
        text = "99.9"
    if text == "0.0" and share > 0:
        text = "0.1"
    return f"{text.removesuffix('.0')} %"


def seconds(value: float) -> str:
    """0.034 s, 12 s, 5 min 20 s, 3 h 5 min."""
    if math.isnan(value):
        return "–"
    if value < 60:  # noqa: PLR2004 - of a minute
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def moment(unix_s: float) -> str:
    """21 November 2026, 11:29 UTC."""
    when = datetime.fromtimestamp(unix_s, UTC)
    return f"{when.day} {when:%B %Y, %H:%M} UTC"


def many(count: int, one: str, more: str | None = None) -> str:
    """1 image, 2,000 images."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"
