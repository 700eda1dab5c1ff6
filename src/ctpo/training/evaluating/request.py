"""What an evaluation is asked for, and what that comes to: problems, settings, instructions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ctpo.tasks import BUILTIN, Problem, load_benchmark, read_problems
from ctpo.tir.protocols import FENCE, ToolProtocol, protocol
from ctpo.tir.server.endpoint import Api
from ctpo.training.problems import benchmark_names
from ctpo.training.recipe.recipe import Recipe, Rollout
from ctpo.training.run_directory import RunDirectory

# Of a model without a run.
_USUAL: dict[str, Any] = {
    "data": "builtin",
    "problems": 128,
    "samples": 4,
    "temperature": 1.0,
    "hard_fraction": 0.0,
    "max_response_tokens": 2048,
    "max_calls": 4,
    "chat_template_kwargs": {},
}

_LEAST = {
    "problems": 1,
    "samples": 1,
    "max_response_tokens": 1,
    "max_calls": 0,
    "seed": 0,
    "batch_size": 1,
}


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server.

    Attributes:
        url: Its address.
        api: `chat` or `completions`.
        tokenizer: Whose chat template makes the prompts of the completions API: a directory or a
            Hub name.
        key_variable: Environment variable that holds the key, if the server wants one.
        concurrency: Episodes side by side.
        retries: How often a failed request is repeated.
        timeout: Seconds of silence after which a request counts as failed.
        extra: More fields for every request.
    """

    url: str
    api: Api = "chat"
    tokenizer: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    retries: int = 8
    timeout: float = 600.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_text("server.url", self.url)
        if self.tokenizer is not None:
            _check_text("server.tokenizer", self.tokenizer)
        _check_number("server.concurrency", self.concurrency, 1)
        _check_number("server.retries", self.retries, 0)
        _check_number("server.timeout", self.timeout, 0.1, whole=False)


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate. What is None is as in the run, or as said here where there is no run.

    Attributes:
        model: A run directory, a model directory, a Hub name, or the model's name on a server.
        benchmarks: Names of registered benchmarks, each perhaps `name=path`.
        data: Instead of benchmarks, a built-in family, a file in verl's schema, or a Hub name;
            `builtin`.
        revision: Of the benchmarks on the Hub, instead of the pinned ones.
        problems: Most problems to ask of each; of the built-in ones 128, else all.
        samples: Answers per problem; 4.
        ks: The k of pass@k and maj@k; powers of two up to `samples`.
        temperature: Of the sampling, 0 for greedy; 1.
        hard_fraction: Share of built-in problems with three-digit operands; 0.
        protocol: How the tool is called; the run's own, or `fence`.
        instructions: Whether the protocol is explained in a system message. If None it is, except
            for a run, whose recipe says what its model was told, and for built-in problems put to a
            model loaded here.
        max_response_tokens: Most tokens of a response; 2048.
        max_calls: Most programs in a response; 4.
        chat_template_kwargs: Given to the chat template; nothing.
        reward: What says how good an answer is: `grade`, or the `module:name` of a function of
            (trajectory, problem), for which 1 or more is right; the run's first, or `grade`.
        seed: Of the sampling.
        batch_size: Episodes side by side, of a model loaded here.
        server: Where the model is, unless it is loaded here.
    """

    model: str
    benchmarks: Sequence[str] = ()
    data: str | None = None
    revision: str | None = None
    problems: int | None = None
    samples: int | None = None
    ks: Sequence[int] = ()
    temperature: float | None = None
    hard_fraction: float | None = None
    protocol: str | None = None
    instructions: bool | None = None
    max_response_tokens: int | None = None
    max_calls: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reward: str | None = None
    seed: int = 0
    batch_size: int = 64
    server: Server | None = None

    def __post_init__(self) -> None:
        _check_text("model", self.model)
        for name in ("data", "revision", "protocol", "reward"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        for name, kind in (("benchmarks", "names"), ("ks", "ints")):
            if isinstance(getattr(self, name), str) or not isinstance(
                getattr(self, name), Sequence
            ):
                raise TypeError(f"{name} is {getattr(self, name)!r}; it must be a list of {kind}")
        for at, benchmark in enumerate(self.benchmarks):
            _check_text(f"benchmarks[{at}]", benchmark)
        for at, k in enumerate(self.ks):
            _check_number(f"ks[{at}]", k, 1)
        for name, least in _LEAST.items():
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name), least)
        if self.temperature is not None:
            _check_number("temperature", self.temperature, 0, whole=False)
        if self.hard_fraction is not None:
            _check_number("hard_fraction", self.hard_fraction, 0, 1, whole=False)
        if self.server is not None and not isinstance(self.server, Server):
            raise TypeError(
                f"server is {self.server!r}; it must be a Server of {__name__}, with its url"
            )


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; it must be text")
    if not value.strip():
        raise ValueError(f"{name} is {value!r}, which is empty")


def _check_number(
    name: str, value: object, least: float, most: float = math.inf, *, whole: bool = True
) -> None:
    if not isinstance(value, int if whole else int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be {'an int' if whole else 'a number'}")
    if not (least <= value <= most and math.isfinite(value)):
        limit = f"to {most:g}" if most < math.inf else "or more" + ", and finite" * (not whole)
        raise ValueError(f"{name} is {value}; it must be {least:g} {limit}")


def choose(request: EvaluationRequest, recipe: Recipe | None) -> dict[str, Any]:
    """Return what holds of everything that a request may leave to its run.

    Args:
        request: What was asked for.
        recipe: The run's, if the model is one.

    Raises:
        ValueError: A choice has no effect, or contradicts another.
    """
    asked = {name: value for name, value in asdict(request).items() if value is not None}
    of_run: dict[str, Any] = {}
    if recipe is not None:
        of_run = {
            "data": recipe.data.held_out,
            "problems": recipe.data.held_out_problems,
            "samples": recipe.evaluation.samples_per_problem,
            "temperature": recipe.evaluation.temperature,
            "hard_fraction": recipe.data.hard_fraction,
            "max_response_tokens": recipe.rollout.max_response_tokens,
            "max_calls": recipe.rollout.max_calls,
            "chat_template_kwargs": recipe.model.chat_template_kwargs,
        }
    chosen = _USUAL | of_run | {name: asked[name] for name in _USUAL if name in asked}
    if request.benchmarks and request.data is not None:
        raise ValueError("give either benchmarks or data, not both")
    if request.benchmarks or request.data not in (None, *BUILTIN):
        chosen["problems"] = request.problems  # all, unless a number was named
    if chosen["temperature"] == 0 and request.samples is None:
        chosen["samples"] = 1
    if chosen["temperature"] == 0 and chosen["samples"] > 1:
        raise ValueError(
            f"samples is {chosen['samples']} at temperature 0; greedy answers to a problem are all "
            "the same, so it must be 1"
        )
    if request.hard_fraction is not None and (request.benchmarks or chosen["data"] not in BUILTIN):
        raise ValueError("hard_fraction has an effect on built-in problems only")
    if request.revision is not None and not request.benchmarks:
        raise ValueError("revision has an effect on benchmarks only")
    if request.max_calls is not None and request.protocol == "plain":
        raise ValueError("max_calls has no effect under the protocol plain, which has no calls")
    return chosen


def find_run(model: str) -> RunDirectory | None:
    """Open the run, if the model is one.

    Raises:
        ValueError: The run has no trained model yet.
    """
    if not (Path(model) / "recipe.toml").is_file():
        return None
    run = RunDirectory.open(Path(model))
    if not run.model.is_dir():
        raise ValueError(f"{model} holds no trained model yet; evaluate one of its checkpoints")
    return run


def load_problems(
    request: EvaluationRequest, chosen: Mapping[str, Any]
) -> tuple[dict[str, Sequence[Problem]], dict[str, dict[str, Any]]]:
    """Return problems by benchmark, and where each benchmark is from.

    Args:
        request: What was asked for.
        chosen: What `choose` returned.

    Raises:
        FileNotFoundError: There is no such file, or a benchmark cannot be reached.
        ValueError: The problems cannot be read, or are not the benchmark's.
    """
    # What a run was evaluated on may be benchmarks too.
    names = request.benchmarks or benchmark_names(chosen["data"])
    if names:
        loaded = [
            load_benchmark(name, revision=request.revision, limit=chosen["problems"])
            for name in dict.fromkeys(names)
        ]
        if len({one.name for one in loaded}) < len(loaded):
            raise ValueError(f"a benchmark is named twice in {', '.join(names)}")
        return (
            {one.name: one.problems for one in loaded},
            {
                one.name: {
                    "source": one.source,
                    "revision": one.revision,
                    "golds": one.golds,
                    "of": one.count,
                }
                for one in loaded
            },
        )
    data = chosen["data"]
    if data in BUILTIN:
        problems = BUILTIN[data](
            chosen["problems"], seed=0, hard_fraction=chosen["hard_fraction"], split="held-out"
        )
    else:
        problems = read_problems(data, limit=chosen["problems"], field="data")
    groups: dict[str, Sequence[Problem]] = {data if data in BUILTIN else Path(data).stem: problems}
    revision = None
    if Path(data).is_file():
        revision = "sha256:" + hashlib.sha256(Path(data).read_bytes()).hexdigest()
    return groups, {name: {"source": data, "revision": revision} for name in groups}


def instructions(request: EvaluationRequest, recipe: Recipe | None) -> str | None:
    """Return the system message: the protocol's, or what the run's model was trained under."""
    if request.instructions is False:
        return None
    if request.instructions is None and request.protocol is None:
        if recipe is not None:
            return recipe.system_message
        if request.server is None and not request.benchmarks and request.data in (None, *BUILTIN):
            return None
    return chosen_protocol(request, recipe.rollout if recipe else None).instructions


def chosen_protocol(request: EvaluationRequest, rollout: Rollout | None) -> ToolProtocol:
    """Return the protocol asked for, the run's own, or `fence`.

    Raises:
        ValueError: There is no such protocol.
    """
    if request.protocol is None and rollout is not None:
        return rollout.tool_protocol
    return protocol(request.protocol or FENCE.name)
