"""A run's state for Prometheus: `amg run --metrics-port 9400`, with the extra `metrics`."""

from amg.errors import ConfigError
from pipelines.corpus.state import OnState, RunState


def serve_metrics(port: int, address: str = "127.0.0.1") -> OnState:
    """Serve metrics on a port of an address; give what keeps them up to date.

    Raises ConfigError where prometheus_client is missing or the port cannot be had there.
    """
    try:
        from prometheus_client import Gauge, start_http_server  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError("--metrics-port needs `pip install '.[metrics]'`") from error
    try:
        start_http_server(port, addr=address)
    except OSError as error:
        raise ConfigError(f"--metrics-port {port} on {address}: {error.strerror}") from error
    planned = Gauge("amg_images_planned", "Images of the run")
    images = Gauge("amg_images", "Images with a row, by status", ["status"])
    masks = Gauge("amg_masks", "Masks of all rows")
    workers = Gauge("amg_workers", "Workers, by state", ["state"])
    busy = Gauge("amg_busy_share", "Share of the workers' time that the generator works")
    shards = Gauge("amg_shards_left", "Shards without a commit")

    def watch(state: RunState) -> None:
        total = state.resumed + state.done
        planned.set(state.n_images)
        masks.set(total.masks)
        for status, n in total.statuses.items():
            images.labels(status).set(n)
        workers.labels("ready").set(state.n_workers)
        workers.labels("starting").set(state.n_starting)
        busy.set(state.busy_share)
        shards.set(state.n_shards_left)

    return watch
