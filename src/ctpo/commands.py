"""`ctpo.train` and `ctpo.evaluate`: what the commands of these names do, for Python."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import fields as fields_of
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpo.references import reference_to

if TYPE_CHECKING:
    from ctpo.evaluation.rewards import Reward
    from ctpo.report import BeforeAfter, Phase
    from ctpo.report.tracking import Tracking
    from ctpo.tir import Generator, ToolProtocol
    from ctpo.training.evaluating.request import EvaluationRequest
    from ctpo.training.listening import Listener
    from ctpo.training.recipe.recipe import Recipe
    from ctpo.training.run_directory import RunDirectory

# What is heavy is imported where it is used: the command line asks this file for defaults, too.

# A source by name, a list of rows or `tasks.Problem`s, or a function that gives one.
Problems = str | Sequence[Any] | Callable[[], Any]


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        path: The run directory.
        report: Its page.
        accuracy: Held-out accuracy before and after, by source and decoding.
        phases: Where the time went.
    """

    path: Path
    report: Path
    accuracy: list[BeforeAfter]
    phases: list[Phase]

    @property
    def model(self) -> Path:
        """The trained model, as `transformers` loads it."""
        return self.path / "model"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One entry per batch of rollouts."""
        from ctpo.training.run_directory import RunDirectory

        return RunDirectory.open(self.path).metrics()


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation; as text it is the summary that `ctpo eval` prints.

    Attributes:
        path: The evaluation's directory, with every answer.
        page: Its page.
        summary: What `summary.json` holds.
        text: The summary in Markdown.
    """

    path: Path
    page: Path
    summary: dict[str, Any]
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def failed(self) -> bool:
        """Whether a server failed to give answers; the same call asks for them again."""
        return any(one["beside"]["failed"] for one in self.summary["benchmarks"].values())


def train(
    recipe: str | Path | Recipe | None = None,
    *,
    change: Sequence[str] = (),
    output: str | Path | None = None,
    resume: str | Path | None = None,
    problems: Problems | None = None,
    held_out: Problems | None = None,
    rewards: Mapping[str | Reward, float] | str | Reward | None = None,
    tools: Sequence[str | Callable[..., Any]] | None = None,
    protocol: str | ToolProtocol | None = None,
    generator: str | Callable[[Any], Generator] | None = None,
    listener: Listener | None = None,
) -> TrainingResult:
    """Train a model by a recipe, as `ctpo train` does.

    Parts of your own may be given as they are instead of by `module:name`. The recipe in the run
    directory then names them; one that cannot be imported by its name, such as a lambda or a list,
    must be given again to resume.

    Args:
        recipe: A shipped recipe's name, a TOML file, or a recipe; left out with `resume`.
        change: Changes of it, each `section.key=value`.
        output: The run directory; `runs/NAME-SEED-TIME` unless given.
        resume: A run directory to go on with, in place of `recipe`.
        problems: In place of `data.train`.
        held_out: In place of `data.held_out`.
        rewards: In place of `rewards`: one, by name or as a function, or weights of several.
        tools: In place of `rollout.tools`.
        protocol: In place of `rollout.protocol`.
        generator: In place of `rollout.generator`.
        listener: Is told how far the run is.

    Raises:
        RecipeError: The recipe cannot be used.
        TypeError: An argument is of another kind.
        FileExistsError: There is something at `output`.
        ValueError: The arguments contradict each other, or as `training.run.run`, whose other
            errors come through as well.
    """
    from ctpo.report import before_after, phases, read_run, write_report
    from ctpo.report.tracking import check_trackers
    from ctpo.tir import ToolProtocol
    from ctpo.training.recipe.loading import load_recipe
    from ctpo.training.recipe.recipe import Recipe
    from ctpo.training.run import preflight, run
    from ctpo.training.run_directory import RunDirectory

    if (recipe is None) == (resume is None):
        raise ValueError("give either a recipe or resume, a run directory")
    for name, place in (("recipe", recipe), ("resume", resume), ("output", output)):
        if isinstance(place, str) and not place.strip():
            raise ValueError(f"{name} is {place!r}, which is empty")
    if resume is not None and (change or output is not None):
        raise ValueError("a resumed run keeps its recipe and place: leave out change and output")
    if callable(rewards) or isinstance(rewards, str):
        rewards = {rewards: 1.0}
    if not isinstance(rewards, Mapping | None):
        raise TypeError(
            f"rewards is {rewards!r:.80}; it must be a function, or weights by function or name"
        )
    for name, parts in (("change", change), ("tools", tools)):
        if isinstance(parts, str) or not isinstance(parts, Sequence | None):
            raise TypeError(f"{name} is {parts!r:.80}; it must be a list, also of one alone")
    if not isinstance(protocol, str | ToolProtocol | None):
        raise TypeError(f"protocol is {protocol!r}; it must be a name or a ctpo.tir.ToolProtocol")
    own: dict[str, Any] = {
        "data.train": _reference(problems, "train"),
        "data.held_out": _reference(held_out, "held_out"),
        "rewards": rewards
        and {_reference(f, f"reward_{i}"): w for i, (f, w) in enumerate(rewards.items())},
        "rollout.tools": tools and [_reference(t, f"tool_{i}") for i, t in enumerate(tools)],
        "rollout.protocol": _reference(protocol, "protocol"),
        "rollout.generator": _reference(generator, "generator"),
    }
    own = {name: value for name, value in own.items() if value is not None}
    if resume is not None:
        directory = RunDirectory.open(Path(resume))
        resolved = directory.recipe
        if _with(resolved, own) != resolved:
            raise ValueError(f"{resume} was begun with other parts than are given now")
        preflight(resolved)
    else:
        resolved = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), change)
        if isinstance(recipe, Recipe) and change:
            raise ValueError("change is for a recipe by name or file")
        resolved = _with(resolved, own)
        check_trackers(resolved.report_to)
        preflight(resolved)  # a mistake leaves no run directory behind
        directory = RunDirectory.create(Path(output or default_place(resolved)), resolved)
    with tracked(directory, listener) as heard:
        run(resolved, directory, cache=cache_directory(), listener=heard)
    page = write_report(directory.path)
    return TrainingResult(
        directory.path, page, before_after(directory.path), phases(read_run(directory.path))
    )


def evaluate(
    model: str | Path | EvaluationRequest,
    *,
    output: str | Path | None = None,
    reward: str | Reward | None = None,
    data: Problems | None = None,
    listener: Listener | None = None,
    **options: Any,  # noqa: ANN401
) -> EvaluationResult:
    """Measure a model, as `ctpo eval` does.

    Args:
        model: A run directory, a model directory, a Hub name, or a whole request.
        output: The evaluation's directory; `evals/MODEL-PROBLEMS` unless given. With the same
            arguments the work goes on where it was left.
        reward: What says how good an answer is, by name or as a function.
        data: The problems, if they are not benchmarks.
        listener: Is told how far it is.
        **options: The other fields of `EvaluationRequest`.

    Raises:
        TypeError: There is no such option.
        ValueError: As `training.evaluating.evaluate.evaluate_request`, whose other errors come
            through as well.
    """
    from ctpo.report.trajectories import write_trajectory_page
    from ctpo.training.evaluating.evaluate import evaluate_request
    from ctpo.training.evaluating.request import EvaluationRequest
    from ctpo.training.listening import Quiet

    if isinstance(output, str) and not output.strip():
        raise ValueError(f"output is {output!r}, which is empty")
    if isinstance(model, EvaluationRequest):
        request = model
        if options or reward is not None or data is not None:
            raise ValueError("a whole request says everything itself; leave the options out")
    else:
        _check_options(options)
        named = {"reward": _reference(reward, "reward"), "data": _reference(data, "data")}
        request = EvaluationRequest(str(model), **named, **options)
    names = [name.partition("=")[0] for name in request.benchmarks]
    asked = names or [Path(request.data or "held-out").stem]
    name = re.sub(r"[^\w.+-]+", "-", "-".join([request.model.rstrip("/"), *asked])).strip("-")
    path = Path(output or Path("evals") / name)
    text = evaluate_request(request, path, listener or Quiet())
    page = write_trajectory_page(path)
    return EvaluationResult(path, page, json.loads((path / "summary.json").read_text()), text)


def _check_options(options: Mapping[str, object]) -> None:
    """Refuse what is no field of a request, and name the field that was meant.

    Raises:
        TypeError: There is one.
    """
    from ctpo.training.evaluating.request import EvaluationRequest, Server
    from ctpo.training.recipe.loading import nearest

    fields, of_server = ([f.name for f in fields_of(kind)] for kind in (EvaluationRequest, Server))
    for name in options.keys() - set(fields):
        meant = nearest(name, fields)
        if name in ("endpoint", "request_fields", *of_server):
            place = {"endpoint": "url", "request_fields": "extra"}.get(name, name)
            meant = f": it is {place} of server=Server({', '.join(of_server)}), which is in "
            meant += EvaluationRequest.__module__
        raise TypeError(f"evaluate has no option {name!r}{meant}; it has {', '.join(fields)}")


def cache_directory() -> Path:
    """Return where warm-started models are kept; below `~` where this user has no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "ctpo"


def default_place(recipe: Recipe) -> Path:
    """Return where a run goes unless it is told."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{recipe.name}-seed{recipe.seed}-{stamp}"


@contextmanager
def tracked(directory: RunDirectory, listener: Listener | None = None) -> Iterator[Listener]:
    """Yield a listener that sends what the run writes on to the recipe's trackers, too.

    Raises:
        ValueError: A tracker is not installed.
    """
    from ctpo.report.tracking import Tracking
    from ctpo.training.listening import Quiet

    recipe = directory.recipe
    config = recipe.model_dump(exclude_none=True, by_alias=True)
    with Tracking(directory.path, recipe.report_to, recipe.name, config) as tracking:
        yield _Sending(listener or Quiet(), tracking)


class _Sending:
    """A listener between the run and another, which sends what was written."""

    def __init__(self, listener: Listener, tracking: Tracking) -> None:
        self._listener, self._tracking = listener, tracking
        self._training = False

    def phase(self, name: str, total: int | None) -> None:
        self._training = name == "training"
        self._tracking.update()
        self._listener.phase(name, total)

    def progress(self, done: int, total: int | None = None, **numbers: float) -> None:
        if self._training:
            self._tracking.update()
        self._listener.progress(done, total, **numbers)


def _reference(part: object, name: str) -> Any:  # noqa: ANN401 - text, or None for none
    return None if part is None else reference_to(part, name)


def _with(recipe: Recipe, own: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values, checked anew."""
    from ctpo.training.recipe.loading import checked_recipe

    values = recipe.model_dump(by_alias=True)
    for key, value in own.items():
        *sections, name = key.split(".")
        table = values
        for section in sections:
            table = table[section]
        table[name] = value
    return checked_recipe(values)
