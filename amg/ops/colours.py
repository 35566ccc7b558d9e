"""Colours that stay apart, however many there are."""

import colorsys

Colour = tuple[int, int, int]

_GOLDEN_RATIO = 0.618033988749895


def index_colour(index: int) -> Colour:
    """The index-th colour, RGB of 0 to 255: hues by the golden ratio."""
    hue = index * _GOLDEN_RATIO % 1.0
    value = 1.0 if index % 2 else 0.8
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)
