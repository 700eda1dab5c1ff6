"""The warm start: a tiny model learns from a sloppy teacher how the tool is used."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
import transformers
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

import ctpo
from ctpo.disk import locked, whole_directory
from ctpo.evaluation import evaluate
from ctpo.sandbox import Sandbox
from ctpo.tasks import BUILTIN, Problem
from ctpo.tir import EpisodeSettings
from ctpo.tir.transformers_generator import TransformersGenerator
from ctpo.training.listening import Listener, Quiet
from ctpo.training.policy import episode_policy, episode_settings
from ctpo.training.recipe.model import TinyModel, WarmStart
from ctpo.training.recipe.recipe import Recipe
from ctpo.training.tiny import supervised, teacher
from ctpo.training.tiny.model import build_model, build_tokenizer

_VALIDATION = 256  # problems the accuracy is measured on; its standard error is about 0.03


class WarmStartFailed(RuntimeError):
    """The model did not reach the target accuracy in the steps it was given."""


def warm_start(
    recipe: Recipe,
    sandbox: Sandbox,
    cache: Path,
    listener: Listener | None = None,
) -> Path:
    """Return the directory of a warm-started model and its tokenizer, training it if need be.

    What went into it, the code included, is hashed; the same ingredients are trained once, also by
    two processes at a time.

    Args:
        recipe: Its `model.tiny`, `warm_start`, `data` and `rollout` sections decide.
        sandbox: A started sandbox, to measure accuracy with.
        cache: Directory of warm starts.
        listener: Is told after every step of the last one's cross entropy per token, in nats, and
            of the sampled accuracy when it was last measured, 0 before.

    Raises:
        WarmStartFailed: The target accuracy was not reached.
        OSError: The cache cannot be read or written; says how another one is named.
    """
    directory = cache / fingerprint(recipe)
    try:
        if directory.is_dir():
            return directory
        if cache.parts[0] == "~":
            raise FileNotFoundError(errno.ENOENT, "this user has no home directory", str(cache))
        cache.mkdir(parents=True, exist_ok=True)
        return _made(recipe, sandbox, directory, listener or Quiet())
    except OSError as error:
        if error.errno is None:
            raise
        why = f"{error.strerror} (XDG_CACHE_HOME names another place for warm starts)"
        raise OSError(error.errno, why, error.filename) from error


def _made(recipe: Recipe, sandbox: Sandbox, directory: Path, listener: Listener) -> Path:
    settings, dimensions = recipe.warm_start, recipe.model.tiny
    assert settings is not None and dimensions is not None, "the recipe has been checked"
    with locked(directory.parent, f".{directory.name}.lock", wait=True):
        if not directory.is_dir():  # nor by the process that was waited for
            with whole_directory(directory) as unfinished:
                _train(
                    settings,
                    dimensions,
                    _drawn(recipe),
                    episode_settings(recipe),
                    sandbox,
                    unfinished,
                    listener,
                )
    return directory


def fingerprint(recipe: Recipe) -> str:
    """Return a hash of everything the warm start depends on."""
    settings = episode_settings(recipe)
    spoken = settings.protocol
    ingredients = {
        "recipe": recipe.model_dump(
            mode="json",
            include={"model": {"tiny"}, "warm_start": True, "threads": True, "sandbox": True},
        ),
        "family": _family(recipe),
        "hard_fraction": recipe.data.hard_fraction,
        # A protocol is functions, which name and version stand for.
        "episode": dataclasses.asdict(settings) | {"protocol": [spoken.name, spoken.version]},
        "code": [path.read_text() for path in _sources()],
        "versions": [
            platform.python_version(),
            torch.__version__,
            transformers.__version__,
            tokenizers.__version__,
        ],
    }
    text = json.dumps(ingredients, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _family(recipe: Recipe) -> str:
    """Return which problems the teacher knows: those trained on, or the usual ones."""
    return recipe.data.train if recipe.data.train in BUILTIN else "builtin"


def _drawn(recipe: Recipe) -> list[Problem]:
    assert recipe.warm_start is not None, "the recipe has been checked"
    return BUILTIN[_family(recipe)](
        recipe.warm_start.problems + _VALIDATION,
        seed=recipe.warm_start.seed,
        hard_fraction=recipe.data.hard_fraction,
    )


def _sources() -> list[Path]:
    """Return the files whose code decides what comes out; the accuracy decides when it ends."""
    package = Path(ctpo.__file__).parent
    rooms = ("evaluation", "grading", "sandbox", "tasks", "tir")
    folders = [*(package / room for room in rooms), package / "training" / "tiny"]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return [*files, package / "training" / "policy.py"]


def _train(
    settings: WarmStart,
    dimensions: TinyModel,
    problems: Sequence[Problem],
    episodes: EpisodeSettings,
    sandbox: Sandbox,
    directory: Path,
    listener: Listener,
) -> None:
    problems, validation = problems[:-_VALIDATION], problems[-_VALIDATION:]
    # The teacher goes through the problems again and again, and makes other mistakes each time.
    asked = list(itertools.islice(itertools.cycle(problems), settings.transcripts))
    transcripts = teacher.demonstrations(asked, settings.seed)
    texts = [t.messages[-1]["content"] + "\n" + t.text for t in transcripts]
    tokenizer = build_tokenizer(texts, dimensions.vocabulary)
    model = build_model(dimensions, tokenizer, settings.seed)
    examples = [supervised.encode(tokenizer, transcript) for transcript in transcripts]
    measured = [0.0]

    def measure() -> float:
        measured.append(_accuracy(episodes, model, tokenizer, sandbox, validation))
        return measured[-1]

    accuracy = supervised.learn(
        model,
        examples,
        settings,
        tokenizer.pad_token_id,
        measure,
        lambda step, steps, loss: listener.progress(step, steps, loss=loss, accuracy=measured[-1]),
    )
    if accuracy is None:
        raise WarmStartFailed(
            f"sampled accuracy is {measured[-1]:.2f} after {settings.max_steps} steps; "
            f"warm_start.target_accuracy is {settings.target_accuracy}. Raise warm_start.max_steps "
            "or take another warm_start.seed"
        )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "warm_start.json").write_text(json.dumps({"accuracy": accuracy}) + "\n")


def _accuracy(
    episodes: EpisodeSettings,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    sandbox: Sandbox,
    problems: Sequence[Problem],
) -> float:
    generator = TransformersGenerator(model, tokenizer)
    policy = episode_policy(generator, tokenizer, sandbox, episodes, 1.0)
    result = evaluate(problems, policy, samples_per_problem=1, batch_size=len(problems))
    return result.overall.mean
