"""What can be added up without keeping values: histograms, and the most extreme rows."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class Histogram:
    """Counts of values between fixed edges; the first and last bin take what lies beyond too."""

    def __init__(self, edges: Floats) -> None:
        self.edges = edges
        self.counts = np.zeros(len(edges) - 1, np.int64)

    def add(self, values: npt.ArrayLike) -> None:
        """Count values; NaN is left out."""
        known = np.asarray(values, np.float64)
        known = known[~np.isnan(known)]
        bins = np.searchsorted(self.edges, known, side="right") - 1
        self.counts += np.bincount(bins.clip(0, len(self.counts) - 1), minlength=len(self.counts))

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The value that `share` of all are below, to the width of a bin. NaN if there is none."""
        if not self.total:
            return float("nan")
        reached = np.concatenate([[0], np.cumsum(self.counts)]) / self.total
        return float(np.interp(share, reached, self.edges))


class Extremes:
    """The rows with the smallest keys, smallest first; of equals, the first rows of the run."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._keys = np.zeros(0)
        self._rows = np.zeros(0, np.int64)

    def add(self, keys: Floats, rows: Int64s) -> None:
        """Offer rows, which rise from call to call; those whose key is NaN are left out."""
        known = ~np.isnan(keys)
        keys = np.concatenate([self._keys, keys[known]])
        rows = np.concatenate([self._rows, rows[known]])
        best = np.argsort(keys, kind="stable")[: self._n]
        self._keys, self._rows = keys[best], rows[best]

    @property
    def rows(self) -> list[int]:
        """The rows, most extreme first."""
        return self._rows.tolist()


def even_edges(most: float, n: int) -> Floats:
    """Edges of `n` bins of one width from 0 to `most`."""
    return np.linspace(0, most, n + 1)


def log_edges(low: int, high: int, per_decade: int) -> Floats:
    """Edges from 10**low to 10**high, each the same factor above the one before."""
    return np.logspace(low, high, (high - low) * per_decade + 1)


def whole_edges(n: int) -> Floats:
    """Edges that give each whole number from 0 to n - 1 a bin of its own."""
    return np.linspace(-0.5, n - 0.5, n + 1)
