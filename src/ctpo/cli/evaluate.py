"""`ctpo eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ctpo.cli.console import Bars, interruptible, place, print_markdown, say, usable

_OF_SERVERS = (
    "api",
    "tokenizer",
    "concurrency",
    "retries",
    "timeout",
    "request_fields",
    "key_variable",
)
_OF_MODELS_HERE = ("batch_size",)


def command(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A run directory, a model directory, a Hub name, or with --endpoint the model's "
            "name on the server."
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Benchmarks, with commas between: aime25,brumo25. aime25=FILE reads it from there."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Instead of benchmarks: builtin, builtin-chain, a Parquet, JSONL or CSV file, or "
            "a Hub name. (default: the run's, or builtin)"
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Of the benchmarks, instead of the pinned one.")
    ] = None,
    problems: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most problems of each. (default: all; of built-in ones the run's, or 128)",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Answers per problem. (default: the run's, or 4)"),
    ] = None,
    k: Annotated[
        str | None,
        typer.Option(help="Of pass@k and maj@k, such as 1,8. (default: powers of two)"),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="Of the sampling; 0 is greedy. (default: the run's, or 1)"),
    ] = None,
    hard_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of built-in problems with three-digit operands. (default: the run's, or 0)"
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="How the tool is called: fence, hermes, plain, or module:name, one of yours. "
            "(default: as the run was trained, or fence)"
        ),
    ] = None,
    instructions: Annotated[
        bool | None,
        typer.Option(
            help="Whether the protocol is explained in a system message. (default: yes, but for "
            "runs, which say it themselves, and for built-in problems put to a model loaded here)"
        ),
    ] = None,
    max_response_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of a response. (default: the run's, or 2048)")
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(min=0, help="Programs per answer. (default: the run's, or 4)")
    ] = None,
    chat_template_kwargs: Annotated[
        str | None,
        typer.Option(help="JSON for the chat template, such as '{\"enable_thinking\": false}'."),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="What says how good an answer is: grade, or module:name, a function of "
            "(trajectory, problem). (default: the run's first, or grade)"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Episodes side by side, of a model loaded here.")
    ] = 64,
    endpoint: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible server that has the model.")
    ] = None,
    api: Annotated[
        Literal["chat", "completions"], typer.Option(help="Which of the server's two.")
    ] = "chat",
    tokenizer: Annotated[
        str | None, typer.Option(help="Whose chat template makes the prompts of --api completions.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Episodes side by side, on a server.")
    ] = 16,
    retries: Annotated[
        int, typer.Option(min=0, help="How often a failed request is repeated.")
    ] = 8,
    timeout: Annotated[
        float, typer.Option(help="Seconds of silence after which a request counts as failed.")
    ] = 600.0,
    request_fields: Annotated[
        str | None, typer.Option(help="JSON of more fields for every request to the server.")
    ] = None,
    key_variable: Annotated[
        str, typer.Option(help="Environment variable with the server's key.")
    ] = "OPENAI_API_KEY",
    output: Annotated[
        Path | None,
        typer.Option(
            parser=place,
            metavar="DIR",
            help="The evaluation's directory. (default: evals/MODEL-PROBLEMS)",
        ),
    ] = None,
    regrade: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Instead: grade the answers of an evaluation's directory again, ask no model, and "
            "say which grades changed.",
        ),
    ] = None,
) -> None:
    """Measure a model: avg@k, pass@k and maj@k with their errors, and every answer.

    The same command goes on where an interrupted one stopped, and asks again for answers that a
    server failed to give, for which the exit code is 1.
    """
    from ctpo.commands import evaluate
    from ctpo.report import ReportError
    from ctpo.sandbox import SandboxUnavailable
    from ctpo.tir import SandboxFailure
    from ctpo.tir.server.endpoint import EndpointError
    from ctpo.training.evaluating.request import EvaluationRequest, Server
    from ctpo.training.termination import terminable

    if regrade is not None:
        _regrade(context, regrade)
        return
    if model is None:
        raise typer.BadParameter("name a model, or --regrade DIR")
    names = [name.strip() for name in (benchmark or "").split(",") if name.strip()]
    if benchmark is not None and not names:
        raise typer.BadParameter(f"--benchmark is {benchmark!r}, which names none")
    server = None
    with usable(
        EndpointError,
        OSError,
        ReportError,
        SandboxFailure,
        SandboxUnavailable,
        ValueError,
    ):
        _refuse_idle(context, endpoint)
        if endpoint is not None:
            server = Server(
                endpoint,
                api,
                tokenizer,
                key_variable,
                concurrency,
                retries,
                timeout,
                _json("--request-fields", request_fields) or {},
            )
        # What is called alike here and there is handed on as it is.
        alike = context.params.keys() & EvaluationRequest.__dataclass_fields__.keys()
        chosen: dict[str, Any] = {name: context.params[name] for name in alike}
        chosen["chat_template_kwargs"] = _json("--chat-template-kwargs", chat_template_kwargs)
        request = EvaluationRequest(
            **chosen, benchmarks=names, ks=_numbers("--k", k), server=server
        )
        with interruptible("the same command goes on"), terminable(), Bars() as bars:
            result = evaluate(request, output=output, listener=bars)
    print_markdown(result.text)
    say(f"answers     {result.path}")
    say(f"page        {result.page}")
    if result.failed:
        raise typer.Exit(1)


def _regrade(context: typer.Context, place: Path) -> None:
    from ctpo.evaluation.regrade import regrade
    from ctpo.report import ReportError
    from ctpo.report.trajectories import write_trajectory_page

    with usable(OSError, ReportError, ValueError):
        for name in _given(context):
            if name != "regrade":
                raise ValueError(f"{name} has no effect with --regrade, which asks no model")
        found = regrade(place)
        if found.summary:
            write_trajectory_page(place)
    say(found.report())
    print_markdown(found.summary)


def _refuse_idle(context: typer.Context, endpoint: str | None) -> None:
    given = _given(context)
    for name in _OF_SERVERS if endpoint is None else _OF_MODELS_HERE:
        if name in given:
            where = "with" if endpoint is None else "without"
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} has an effect {where} --endpoint only")


def _given(context: typer.Context) -> list[str]:
    """Return what stands on the command line, and not at its default."""
    sources = ((name, context.get_parameter_source(name)) for name in context.params)
    return [name for name, source in sources if source and source.name == "COMMANDLINE"]


def _json(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{option} is {text!r}, which is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{option} is {text!r}; it must be a JSON object")
    return value


def _numbers(option: str, text: str | None) -> list[int]:
    try:
        return [int(number) for number in (text or "").split(",") if number.strip()]
    except ValueError:
        raise ValueError(f"{option} is {text!r}; it must be numbers such as 1,8") from None
