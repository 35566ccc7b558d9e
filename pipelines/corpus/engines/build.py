"""From a configuration to the engine that it names."""

from amg.config import Config
from pipelines.corpus.engines.local import LocalEngine
from pipelines.corpus.messages import Engine, WorkerSetup


def make_engine(setup: WorkerSetup, n_shards: int) -> Engine:
    """The engine of a configuration, with no more workers than there are shards."""
    wanted = setup.config.engine
    if wanted.name == "ray":
        from pipelines.corpus.engines.ray import RayEngine  # noqa: PLC0415 - only where it is wanted

        return RayEngine(setup, n_shards)
    devices = _local_devices(setup.config)
    n_workers = wanted.max_workers or max(1, len(devices))
    return LocalEngine(setup, min(n_workers, n_shards), devices)


def _local_devices(config: Config) -> tuple[str, ...]:
    """Every GPU, if the user left the choice to us; otherwise what the configuration says."""
    if config.model.device is not None:
        return ()
    import torch  # noqa: PLC0415 - slow, and not needed where the user has chosen

    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))
