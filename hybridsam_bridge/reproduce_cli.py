"""``hybridsam-bridge reproduce TASK``: published studies, run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hybridsam_bridge.errors import InvalidInput

SPATIAL = "spatial-physics"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(reproduce)


def reproduce(
    task: Annotated[str | None, typer.Argument(help="What to reproduce; an unknown name lists the known ones.")] = None,
    methods: Annotated[str | None, typer.Option(help="Such as erm,sam; all that apply if not given.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A minute's version without Julia; claims nothing.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where results go; runs that are there are kept.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; the number of cores if not given.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of the study's own.")] = None,
    publish: Annotated[Path | None, typer.Option(help="Folder whose results and README.md to update.")] = None,
    networks: Annotated[bool, typer.Option("--networks", help="spatial-physics: train the networks too.")] = False,
    full: Annotated[bool, typer.Option("--full", help="spatial-physics: all 25 spaces and a Gaussian field.")] = False,
) -> None:
    """Reproduce a published comparison; goes on where it was interrupted."""
    if task == SPATIAL:
        if quick or publish or methods is not None or seeds is not None or workers is not None:
            raise InvalidInput(f"reproduce: {SPATIAL} takes --folder, --networks, --full and --steps only.")
        from hybridsam_bridge.trust.spatial_physics import reproduce as run

        where = folder or Path("runs") / SPATIAL
        run(where, typer.echo, networks=networks, full=full, steps=1000 if steps is None else steps)
        return
    if networks or full:
        raise InvalidInput(f"reproduce: --networks and --full are options of {SPATIAL}.")
    from hybridsam_bridge.reproduce import publish as publishing
    from hybridsam_bridge.reproduce.command import default_folder
    from hybridsam_bridge.reproduce.registry import GROUPS, STUDIES

    if task in GROUPS:
        for name in GROUPS[task]:
            below = None if folder is None else folder / Path(name).stem
            reproduce(name, methods, seeds, quick, below, workers, steps, publish)
        return
    if task is None and publish is not None:
        publishing.write_readme(publish)
        return
    if task is None or (task not in STUDIES and not task.endswith(".py")):
        what = "name a task" if task is None else f"{task!r} is not known"
        known = ", ".join([*STUDIES, *GROUPS, SPATIAL])
        raise InvalidInput(f"reproduce: {what}. Known: {known}, or a .py file with study().")
    where = folder or default_folder(task, quick)
    _compare(task, quick=quick, methods=_names(methods), seeds=seeds, folder=where, workers=workers, steps=steps)
    if publish is not None:
        publishing.publish(where, publish)


def _compare(task: str, **options: Any) -> None:
    """Run a study; a signal ends the program as a shell expects it, and so does a study of which nothing worked."""
    from hybridsam_bridge.reproduce.command import reproduce as compare
    from hybridsam_bridge.reproduce.runner import Interrupted
    from hybridsam_bridge.tasks.command import SIGNALS

    try:
        summary = compare(task, say=typer.echo, **options)
    except Interrupted as signal:
        typer.echo(f"{signal}: what ran is saved. Go on with the same command.")
        raise typer.Exit(SIGNALS[str(signal)]) from None
    if not any("theta_error" in method for method in summary["methods"].values()):
        raise typer.Exit(1)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
