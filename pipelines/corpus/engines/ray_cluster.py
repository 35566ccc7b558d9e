"""Which Ray cluster a run works on, and what of it an actor asks for."""

import logging
import os
from collections.abc import Mapping
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address

from amg.config import EngineConfig
from amg.errors import ConfigError
from pipelines.corpus.serve import in_a_line

logger = logging.getLogger(__name__)


def connect(config: EngineConfig) -> tuple[bool, bool]:
    """Join a cluster, or start one here; whether it was there, and whether it is ours to leave.

    Without an address Ray's own rules hold: `RAY_ADDRESS`, which Ray sets within its jobs, then
    what `ray start` has begun here. Raises ConfigError for an address where no cluster answers.
    """
    if ray.is_initialized():
        return True, False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        # What follows differs for a cluster of our own, so that we must know before Ray does.
        if config.address in (None, "local") and _known_address(config.address) is None:
            # "local", or a cluster that begins this moment would be joined.
            ray.init("local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
            return False, True
        ray.init(address=config.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        named = config.address or os.environ.get("RAY_ADDRESS")
        where = repr(named) if named else "the cluster that `ray start` has noted on this machine"
        raise ConfigError(
            f"engine.address: {where}: {in_a_line(str(error))}; local starts Ray on this machine"
        ) from error
    return True, True


def _known_address(address: str | None) -> str | None:
    """What `ray.init` would join, None where it would start a cluster."""
    named = address or os.environ.get("RAY_ADDRESS")
    if named and "://" in named:
        return named  # a client's or a job server's: for Ray to say what it thinks of it
    return canonicalize_bootstrap_address(address)  # pyright: ignore[reportArgumentType]


def actor_options(
    config: EngineConfig, have: Mapping[str, float], *, joined: bool
) -> dict[str, Any]:
    """What an actor asks of Ray."""
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if have.get("GPU") else 0.0
        if not gpus and joined:
            logger.warning(
                "this cluster shows no GPU, so workers will use none; "
                "where nodes with GPUs are yet to come, give --gpus-per-worker"
            )
    cpus = 1.0 if config.cpus_per_worker is None else config.cpus_per_worker
    return {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}


def n_fitting(options: dict[str, Any], have: Mapping[str, float]) -> int:
    """How many actors fit these resources, were they free."""
    wanted = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]}
    return int(min((have.get(kind, 0) / n for kind, n in wanted.items() if n), default=1))


def say_what_was_joined(have: Mapping[str, float], n_by_itself: int | None) -> None:
    """n_by_itself: how many workers there will be, if nobody has said how many."""
    address = ray.get_runtime_context().gcs_address
    cpus, gpus = (have.get(kind, 0) for kind in ("CPU", "GPU"))
    workers = (
        ""
        if n_by_itself is None
        else (
            f"; {n_by_itself} workers fit it now, and no more will be started: "
            "--workers MIN:MAX asks for those that are yet to fit, for which a cluster may grow"
        )
    )
    logger.info("joined the Ray cluster at %s: %g CPUs, %g GPUs%s", address, cpus, gpus, workers)


def node_label() -> str:
    """The label that holds a node's id: versions of Ray spell it differently."""
    labels = ((node["NodeID"], node.get("Labels") or {}) for node in ray.nodes())
    names = (name for id_, held in labels for name, value in held.items() if value == id_)
    return next(names, "ray.io/node-id")
