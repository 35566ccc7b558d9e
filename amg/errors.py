"""What can go wrong for a user: every error names what and where."""


class AmgError(Exception):
    """Base of all errors that amg raises for its users."""


class ConfigError(AmgError, ValueError):
    """Parameters or configuration keys that cannot be used; `problems` has a line for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class ShadowedError(AmgError, ImportError):
    """Another package has the name of one of ours, and Python finds it first."""


class CheckpointError(AmgError):
    """A checkpoint is missing, damaged, of another model, or unsafe to load."""


class RleError(AmgError, ValueError):
    """A run-length encoding is not a valid mask of the size it claims."""


class OutputError(AmgError):
    """A result cannot be written."""


class StorageError(AmgError):
    """A storage that cannot be reached, or refuses.

    `passing`: it may be over in a minute, and is worth waiting for; a full disk is not.
    """

    def __init__(self, message: str, *, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing

    def __reduce__(self) -> tuple[object, ...]:
        return _make_storage_error, (type(self), str(self), self.passing)


class ShardError(OutputError):
    """A shard file cannot be written, or does not hold what it should."""


class RunError(AmgError):
    """A run's folder is not what the command needs: no run, another run, damaged, or in use."""


class InterruptedRunError(RunError):
    """A run that ended early, or found another at work: the same command goes on from there."""


class RunInUseError(InterruptedRunError):
    """Another driver is at work on the folder."""


class BlockedRunError(RunError):
    """A run that cannot go on, however often it is called, until somebody mends what it names."""


class EvaluationError(AmgError, ValueError):
    """Masks cannot be compared with a ground truth: it is damaged, of other images, or no such."""


class ImageError(AmgError, ValueError):
    """An image cannot be read.

    `status` is the row status this error becomes: "missing", "unreachable", "too_large" or
    "decode_error".
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(status, message)  # both, so that it survives pickling
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return self.message


def _make_storage_error(kind: type[StorageError], message: str, passing: bool) -> StorageError:
    return kind(message, passing=passing)
