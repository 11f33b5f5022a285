"""The command line: ``hybridsam-bridge doctor | setup-julia | train | compare | bench | trust | reproduce``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from hybridsam_bridge import reproduce_cli, trust_cli
from hybridsam_bridge.errors import HybridSAMError, InvalidInput

app = typer.Typer(
    help="Stiff scientific models with neural networks inside: solved in Julia, trained in torch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def doctor() -> None:
    """Report what is found here, which backend "auto" takes and why, and how to get the other."""
    from hybridsam_bridge.diagnostics.doctor import examine

    typer.echo(examine())


@app.command("setup-julia")
def setup_julia(
    julia: Annotated[Path | None, typer.Option(help="A Julia executable that is already there.")] = None,
    project: Annotated[Path | None, typer.Option(help="A Julia environment that has the packages.")] = None,
) -> None:
    """Install and precompile Julia with its packages, or record an installation that is already there."""
    from hybridsam_bridge.backends import setup

    if (julia is None) != (project is None):
        raise InvalidInput("setup-julia: --julia and --project go together.")
    if julia is None or project is None:
        setup.install(typer.echo)
    else:
        setup.record(julia, project, typer.echo)


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="A TOML file; without one the hare-lynx task is run.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, such as optimizer.rho=0.1.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, run nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train a hybrid model; writes a run folder with metrics, checkpoints and figures."""
    from hybridsam_bridge.tasks.command import train_command

    raise typer.Exit(train_command(config, set_ or [], resume, dry_run, not quiet, typer.echo))


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(help="Run folders.")]) -> None:
    """Table several runs: settings that differ, losses, parameters."""
    from hybridsam_bridge.tasks.compare import compare as table

    typer.echo(table(runs))


@app.command()
def bench(
    tables: Annotated[
        list[str] | None, typer.Argument(help="start, W1, W2, threads, bridge, sam, W3, W4; or all.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Repetitions, all tools in turns.")] = 11,
    json: Annotated[Path | None, typer.Option(help="Write the tables to this file.")] = None,
) -> None:
    """Measure gradients against other tools on the same cores (those that are installed), in one run."""
    from hybridsam_bridge.bench.command import bench_command

    bench_command(tables or [], rounds, json, typer.echo)


trust_cli.register(app)
reproduce_cli.register(app)


def main() -> None:
    """Entry point: errors of the package are one message and exit code 1, not a traceback."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("hybridsam_bridge").setLevel(logging.INFO)
    try:
        app()
    except HybridSAMError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
