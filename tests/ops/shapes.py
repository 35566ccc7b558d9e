"""Odd masks: what outlines, maps and codes must not stumble over."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays


def _picture(text):
    return np.array([[c == "#" for c in line.strip()] for line in text.strip().splitlines()])


SHAPES = {
    "one pixel": _picture("...\n.#.\n..."),
    "all there is": _picture("#"),
    "whole image": np.ones((5, 7), bool),
    "horizontal line": _picture("....\n####\n...."),
    "vertical line": _picture(".#.\n.#.\n.#."),
    "diagonal line": np.eye(6, dtype=bool),
    "touching at a corner": _picture("##..\n##..\n..##\n..##"),
    "two pixels at a corner": _picture("#.\n.#"),
    "hole": _picture("#####\n#...#\n#.#.#\n#...#\n#####"),
    "holes in holes": np.pad(
        np.pad(np.pad(np.ones((2, 3), bool), 2), 2, constant_values=True), 2, constant_values=False
    ),
    "holes beside each other": _picture("#######\n#.#.#.#\n#######\n#.#.#.#\n#######"),
    "holes touching at a corner": _picture("#####\n#.###\n##.##\n###.#\n#####"),
    "hole touching the outside": _picture("#####\n#...#\n#..##\n####."),
    "several parts": _picture("##..#\n##...\n....#\n#..##"),
    "chessboard": np.indices((6, 7)).sum(axis=0) % 2 == 0,
    "comb": _picture("#.#.#.#\n#.#.#.#\n#######"),
    "spiral": _picture("#######\n......#\n#####.#\n#...#.#\n#.###.#\n#.....#\n#######"),
}


@st.composite
def masks(draw, most=24):
    """Noise, smooth shapes and everything between, never empty."""
    shape = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    bits = draw(arrays.arrays(np.bool_, shape))
    times = draw(st.integers(1, 4))
    bits = bits.repeat(times, axis=0).repeat(times, axis=1)
    if not bits.any():
        bits[0, 0] = True
    return bits
