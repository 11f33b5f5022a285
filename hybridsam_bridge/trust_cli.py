"""``hybridsam-bridge trust RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(trust)


def trust(
    run: Annotated[str, typer.Argument(help="A run folder, or a .py file or module with trust_report().")],
    folder: Annotated[Path | None, typer.Option(help="Where the report goes.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    seeds: Annotated[int | None, typer.Option(help="Trainings for each function space.")] = None,
) -> None:
    """Report where a hybrid model may be used outside its training data; goes on where it was interrupted."""
    from hybridsam_bridge.tasks.trust import trust_command

    trust_command(run, folder, workers, seeds, typer.echo)
