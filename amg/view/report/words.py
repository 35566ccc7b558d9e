"""Numbers, times and sizes as people read them."""

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
    """94.2 %; only all is 100 %, and only nothing is 0 %."""
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    return f"{min(max(100 * share, 0.1), 99.9):.1f} %"


def round_percent(share: float) -> str:
    """70 %, for axes."""
    return f"{100 * share:.3g} %"


def seconds(value: float) -> str:
    """34 ms, 1.2 s, 5 min 20 s, 3 h 5 min."""
    if value < 1:
        return f"{1000 * value:.2g} ms" if value < 0.1 else f"{1000 * value:.0f} ms"
    if value < 59.5:
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
