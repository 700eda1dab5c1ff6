"""The commands, gathered."""

from __future__ import annotations

from typing import Annotated

import typer

import ctpo
from ctpo.cli import (
    analyze,
    compare,
    data,
    doctor,
    evaluate,
    grade,
    logs,
    plan,
    report,
    sandbox,
    study,
    theory,
    train,
    verl,
)

app = typer.Typer(
    help="Reinforcement learning for language models whose importance ratio is right.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(ctpo.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say which this is."),
    ] = False,
) -> None:
    pass


app.command("train")(train.command)
app.command("data")(data.command)
app.command("eval")(evaluate.command)
app.command("grade")(grade.command)
app.command("analyze")(analyze.command)
app.command("compare")(compare.command)
app.command("inspect-log")(logs.inspect_log)
app.command("lm-eval-log")(logs.lm_eval_log)
app.command("init")(train.init)
app.command("plan")(plan.command)
app.command("report")(report.command)
app.command("runs")(report.list_runs)
app.command("watch")(report.watch)
app.add_typer(study.app, name="study")
app.add_typer(theory.app, name="theory")
app.command("doctor")(doctor.command)
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(verl.app, name="verl")
