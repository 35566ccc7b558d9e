"""The command line. Thin: the work is elsewhere."""

import logging
from collections.abc import Callable
from importlib.metadata import version as package_version
from typing import Annotated

import typer
from rich.console import Console

from amg.cli.embed import embed
from amg.cli.evaluate import edges, evaluate
from amg.cli.export import export
from amg.cli.inspect import gc, status, verify
from amg.cli.options import reports_errors
from amg.cli.plan import plan
from amg.cli.refilter import refilter
from amg.cli.report import report
from amg.cli.run import retry_failed, run
from amg.cli.show import models, show

app = typer.Typer(
    help="Segment everything in every image, and keep the result.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "embed": embed,
    "plan": plan,
    "status": status,
    "verify": verify,
    "retry-failed": retry_failed,
    "gc": gc,
    "show": show,
    "report": report,
    "export": export,
    "refilter": refilter,
    "eval": evaluate,
    "edges": edges,
    "models": models,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(reports_errors(_command))


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("amg.models").setLevel(logging.INFO)  # downloads take minutes: say so
    logging.getLogger("pipelines.corpus.engines").setLevel(logging.INFO)  # which cluster it is
    logging.getLogger("pipelines.corpus.run").setLevel(logging.INFO)  # how much it will write
    if version:
        Console().print(package_version("amg"))
        raise typer.Exit
