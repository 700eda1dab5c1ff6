"""`ctpo train` and `ctpo init`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from ctpo.cli.console import Bars, fail, interruptible, place, print_table, say, usable

if TYPE_CHECKING:
    from ctpo.commands import TrainingResult
    from ctpo.training.recipe.model import Model
    from ctpo.training.recipe.recipe import Recipe


def command(
    recipe: Annotated[
        str | None, typer.Argument(help="A shipped recipe, such as tiny, or a .toml file.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change the recipe: section.key=value; empty removes. May be repeated."
        ),
    ] = None,
    engine: Annotated[
        Literal["trl", "verl"] | None,
        typer.Option(help="Train on this engine instead of the recipe's own."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=place, metavar="DIR", help="The run directory. (default: runs/NAME-SEED-TIME)"
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            parser=place, metavar="DIR", help="Go on with this run directory instead of a new run."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check the model and parts of yours, print the resolved recipe, with verl also "
            "its configuration and the command, and do nothing.",
        ),
    ] = False,
) -> None:
    """Train a model by a recipe."""
    if recipe is None and resume is not None:
        source = str(resume / "recipe.toml")
    elif recipe is not None and resume is None:
        source = recipe
    else:
        raise typer.BadParameter("give either a recipe or --resume RUN", param_hint="RECIPE")
    if resume is not None and (change or output or engine):
        raise typer.BadParameter(
            "a resumed run keeps its recipe, its engine and its place", param_hint="--resume"
        )
    changes = [*(change or []), *([f"engine={engine}"] if engine else [])]

    from ctpo.training.recipe.loading import RecipeError, dump_recipe, load_recipe

    with usable(RecipeError):
        resolved = load_recipe(source, changes)
    from ctpo.commands import default_place, train

    path = output or resume or default_place(resolved)
    if dry_run:
        say(dump_recipe(resolved))
        from ctpo.training.engine import engine_of
        from ctpo.training.policy import check_own_parts

        with usable(ValueError):
            check_own_parts(resolved)
            text = _about_the_model(resolved.model) + _about_the_data(resolved)
            text += engine_of(resolved).describe(path)
        say(text, end="")
        return

    started = time.perf_counter()
    from ctpo.report import ReportError
    from ctpo.sandbox import SandboxUnavailable
    from ctpo.tir import SandboxFailure
    from ctpo.training.tiny.warm_start import WarmStartFailed
    from ctpo.training.verl.run import VerlFailed

    with usable(
        OSError,
        ReportError,
        SandboxFailure,
        SandboxUnavailable,
        ValueError,
        WarmStartFailed,
    ):
        recipe_or_run: dict[str, Any] = (
            {"resume": resume} if resume else {"recipe": resolved, "output": path}
        )
        go_on = f"go on with: ctpo train --resume {path}"
        try:
            with interruptible(go_on), Bars() as bars:
                result = train(**recipe_or_run, listener=bars)
        except (OSError, VerlFailed) as error:
            fail(error)
            if os.path.isfile(path / "recipe.toml"):
                say(f"when that is mended, {go_on}")
            raise typer.Exit(getattr(error, "code", 1)) from None
        _show_result(result, time.perf_counter() - started)


def _about_the_model(model: Model) -> str:
    """Refuse a model that cannot be loaded; return what is to be said where that cannot be told."""
    if model.path is None:
        return ""
    from ctpo.training.models import HubOutOfReach, check_model, quiet_libraries

    quiet_libraries()
    try:
        check_model(model)
    except HubOutOfReach as error:  # it may be there where the run will be
        return f"# model.path is not checked: {' '.join(str(error).split())}\n"
    return ""


def _about_the_data(recipe: Recipe) -> str:
    """Return what is to be said of files of problems that are not here."""
    from ctpo.tasks.readers import SUFFIXES

    return "".join(
        f"# data.{field} is {source}, and there is no such file here\n"
        for field, source in (("train", recipe.data.train), ("held_out", recipe.data.held_out))
        if Path(source).suffix in SUFFIXES and not Path(source).exists()
    )


def init(
    folder: Annotated[
        Path, typer.Argument(parser=place, metavar="DIR", help="Where; made if need be.")
    ],
) -> None:
    """Write a commented recipe, problems and a reward, which train as they are."""
    from ctpo.training.starter import write_starter

    with usable(OSError):
        files = write_starter(folder)
    told = [f"wrote {file}" for file in files]
    told += ["", f"cd {folder}", "export PYTHONPATH=.", "ctpo train recipe.toml --dry-run"]
    say("\n".join([*told, "ctpo train recipe.toml"]))


def _show_result(result: TrainingResult, seconds: float) -> None:
    rows = result.accuracy
    table = Table("problems", title="Held-out accuracy, before → after")
    decodings = list(dict.fromkeys(row.decoding for row in rows))
    for decoding in decodings:
        table.add_column(decoding, justify="right")
        table.add_column("change", justify="right")
    for source in dict.fromkeys(row.source for row in rows):
        cells = [source]
        for row in (r for d in decodings for r in rows if (r.source, r.decoding) == (source, d)):
            cells += [f"{row.before.mean:.1%} → {row.after.mean:.1%}", row.points]
        table.add_row(*cells, style="bold" if source == "all" else None)
        if source == "all":
            table.add_section()
    print_table(table)
    times = Table("phase", "seconds", "share", title="Where the time went")
    for phase in result.phases:
        times.add_row(phase.name, f"{phase.seconds:.0f}", f"{phase.share:.0%}")
    print_table(times)
    say(f"this call   {seconds:.0f} s")
    say(f"run         {result.path}")
    say(f"report      {result.report}")
