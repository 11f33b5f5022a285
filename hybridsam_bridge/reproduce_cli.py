"""``hybridsam-bridge reproduce TASK``: published studies, run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hybridsam_bridge.errors import InvalidInput

SPATIAL = "spatial-physics"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(reproduce)


def reproduce(
    task: Annotated[str, typer.Argument(help="What to reproduce; an unknown name lists the known ones.")],
    methods: Annotated[str | None, typer.Option(help="Such as erm,sam; all that apply if not given.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A minute's version without Julia; claims nothing.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where results go; runs that are there are kept.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; the number of cores if not given.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of the study's own.")] = None,
    networks: Annotated[bool, typer.Option("--networks", help="spatial-physics: train the networks too.")] = False,
    full: Annotated[bool, typer.Option("--full", help="spatial-physics: all 25 spaces and a Gaussian field.")] = False,
) -> None:
    """Reproduce a published comparison; goes on where it was interrupted."""
    if task == SPATIAL:
        if quick or methods is not None or seeds is not None or workers is not None:
            raise InvalidInput(f"reproduce: {SPATIAL} takes --folder, --networks, --full and --steps only.")
        from hybridsam_bridge.trust.spatial_physics import reproduce as run

        where = folder or Path("runs") / SPATIAL
        run(where, typer.echo, networks=networks, full=full, steps=1000 if steps is None else steps)
        return
    if networks or full:
        raise InvalidInput(f"reproduce: --networks and --full are options of {SPATIAL}.")
    from hybridsam_bridge.reproduce.command import reproduce as compare
    from hybridsam_bridge.reproduce.registry import STUDIES
    from hybridsam_bridge.reproduce.runner import Interrupted
    from hybridsam_bridge.tasks.command import SIGNALS

    if task not in STUDIES:
        raise InvalidInput(f"reproduce: {task!r} is not known. Known: {', '.join([*STUDIES, SPATIAL])}.")
    names = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    try:
        compare(
            task, quick=quick, methods=names, seeds=seeds, folder=folder, workers=workers, steps=steps, say=typer.echo
        )
    except Interrupted as signal:
        typer.echo(f"{signal}: what ran is saved. Go on with the same command.")
        raise typer.Exit(SIGNALS[str(signal)]) from None
