"""The configuration of a run: settled for any working folder, kept in the run's, read again."""

from typing import Any

import yaml

from amg.config import OF_THE_CALL, Config, GeneratorConfig, read_yaml, without_call
from amg.errors import ConfigError, RunError
from amg.inputs.allowed import settle
from amg.models.zoo.registry import MODELS, locate_weights
from amg.runs.folder import CONFIG
from amg.storage.stores import Storage


def resolve(config: Config) -> tuple[Config, str]:
    """The configuration with the model's own defaults, and the sha256 of its weights.

    A checkpoint that is a registered model's own file gives the model its name.

    Raises ConfigError for an unknown model, CheckpointError if the weights cannot be had.
    """
    spec, weights = locate_weights(config.model.name, config.model.checkpoint)
    generator = config.generator.for_model(spec.generator_defaults)
    named = config.model.model_copy(update={"name": spec.name if spec.name in MODELS else None})
    settled = settle_paths(config).model_copy(update={"generator": generator, "model": named})
    return settled, weights.sha256


def settle_paths(config: Config) -> Config:
    """The configuration as it holds in any working folder."""
    run = config.run.model_copy(update={"allow": settle(config.run.allow)})
    return config.model_copy(update={"run": run})


def decisive(generator: GeneratorConfig) -> dict[str, Any]:
    """The parameters that decide which masks there are."""
    return generator.model_dump(mode="json", exclude=OF_THE_CALL["generator"])


def as_yaml(config: Config) -> bytes:
    """What a run's folder keeps of a configuration: what decides its rows."""
    kept = config.model_dump(mode="json", exclude=dict(OF_THE_CALL))
    return yaml.safe_dump(kept, sort_keys=False).encode()


def read_config(storage: Storage) -> Config:
    """What decides a run's rows; older folders also hold what was a call's own: it is left out.

    Raises RunError for a file that is missing or damaged.
    """
    data = storage.read(CONFIG)
    if data is None:
        raise RunError(f"{storage.url(CONFIG)} is missing")
    try:
        return without_call(Config(**read_yaml(data)))
    except (TypeError, yaml.YAMLError, ConfigError) as error:
        raise RunError(f"{storage.url(CONFIG)}: no valid configuration: {error}") from error
