"""Another `pipelines` in front of ours: Python takes the first that it finds, be it the user's."""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from amg.errors import ShadowedError

_NAME = "pipelines"
_INSIDE = f"{_NAME}.corpus"
_OURS = Path(__file__).parents[1] / _NAME / "corpus" / "__init__.py"


def require_our_pipelines(front: Sequence[str] = ()) -> None:
    """See to it that an import of `pipelines.corpus` finds ours.

    front: folders that are looked in before all others, in another process. Raises ShadowedError.
    """
    spec = PathFinder.find_spec(_NAME, [*front, *sys.path]) if front else None
    spec = spec or _spec()
    if spec is None or _holds_ours(spec):
        return
    where = Path(next(iter(spec.submodule_search_locations or [spec.origin or ""]))).absolute()
    raise ShadowedError(
        f"{where} is in the way: amg has a package of its own called {_NAME!r}, and Python looks "
        f"in {where.parent} first (the current folder, the script's, or one in PYTHONPATH); "
        "rename it, or work from another folder"
    )


def _spec() -> ModuleSpec | None:
    try:
        return find_spec(_NAME)
    except ValueError:  # somebody has made a module of this name, without a file
        return None


def _holds_ours(spec: ModuleSpec) -> bool:
    """Whether our modules are found in this package: an editable install adds them to any."""
    if spec.submodule_search_locations is None:
        return False
    finders = [f for f in sys.meta_path if hasattr(f, "find_spec")]
    found = (f.find_spec(_INSIDE, list(spec.submodule_search_locations)) for f in finders)
    inner = next(filter(None, found), None)
    return inner is not None and os.path.realpath(inner.origin or "") == os.path.realpath(_OURS)
