"""Commands about trust: ``hybridsam-bridge trust RUN`` and ``hybridsam-bridge reproduce spatial-physics``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hybridsam_bridge.errors import InvalidInput


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(trust)
    app.command()(reproduce)


def trust(
    run: Annotated[str, typer.Argument(help="A run folder, or a .py file or module with trust_report().")],
    folder: Annotated[Path | None, typer.Option(help="Where the report goes.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    seeds: Annotated[int | None, typer.Option(help="Trainings for each function space.")] = None,
) -> None:
    """Report where a hybrid model may be used outside its training data; goes on where it was interrupted."""
    from hybridsam_bridge.tasks.trust import trust_command

    trust_command(run, folder, workers, seeds, typer.echo)


def reproduce(
    task: Annotated[str, typer.Argument(help="What to reproduce: spatial-physics.")],
    folder: Annotated[Path, typer.Option(help="Where results go.")] = Path("runs/spatial-physics"),
    networks: Annotated[bool, typer.Option("--networks", help="Train the networks too (minutes).")] = False,
    full: Annotated[bool, typer.Option("--full", help="All 25 spaces and a Gaussian field.")] = False,
    steps: Annotated[int, typer.Option(help="Training steps of each network.")] = 1000,
) -> None:
    """Reproduce a published study and compare with its printed figures."""
    if task != "spatial-physics":
        raise InvalidInput(f"reproduce: {task!r} is not known. Known: spatial-physics.")
    from hybridsam_bridge.trust.spatial_physics import reproduce as run

    run(folder, typer.echo, networks=networks, full=full, steps=steps)
