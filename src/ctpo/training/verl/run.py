"""A recipe on the verl engine: prepare, check, start, follow, and put in order what is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ctpo.tasks import Problem, write_verl_parquet
from ctpo.tir.rendering import render
from ctpo.training.job import Job
from ctpo.training.models import load_tokenizer
from ctpo.training.recipe.model import Model
from ctpo.training.run_directory import RunDirectory
from ctpo.training.verl import config as verl_config
from ctpo.training.verl import results
from ctpo.training.verl.checkpoints import newest_whole, step_of
from ctpo.training.verl.child import reason, run_child
from ctpo.training.verl.files import Start, VerlFiles
from ctpo.training.verl.settings import settings

_TAIL = 1_000_000  # bytes at the end of a log, in which the reason of its end stands


class VerlFailed(RuntimeError):
    """Training with verl ended before it was done.

    Attributes:
        code: Exit code of verl's process, 128 + n if signal n ended it.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def train(job: Job) -> None:
    """Train a recipe on verl; see `Engine.train`.

    Raises:
        VerlFailed: verl's process ended with an error; says its reason and where its log is.
        ValueError: A prompt is too long, or verl refuses its configuration.
    """
    # The sandbox is gone before verl starts its own.
    with job.start_sandbox() as sandbox:
        model = job.policy_path(sandbox)
    recipe, directory, listener, watch = job.recipe, job.directory, job.listener, job.watch
    verl = recipe.verl
    assert verl is not None, "the recipe has been checked"
    files = VerlFiles(directory.path.resolve())
    if Path(model).is_dir():
        model = str(Path(model).resolve())  # Ray's workers are elsewhere
    files.folder.mkdir(exist_ok=True)
    if not files.held_out.is_file():
        _refuse_long_prompts(
            [*job.train, *job.held_out],
            model,
            verl.max_prompt_tokens,
            recipe.model,
        )
        write_verl_parquet(files.train, job.train)
        write_verl_parquet(files.held_out, job.held_out)
    checkpoint = newest_whole(files)
    done = 0 if checkpoint is None else step_of(checkpoint)
    results.collect(recipe, directory, files, ended=False)
    directory.forget_after(done)
    if done < recipe.optimization.batches:
        start = Start(len(files.starts()) + 1, done)
        files.metrics(start).touch()
        decided = settings(
            recipe,
            files,
            model,
            start=start,
            evaluate_first=not directory.has_evaluation("start"),
        )
        config = verl_config.compose(verl, decided)
        verl_config.validate(config)
        files.config.write_text(verl_config.as_yaml(config, files))
        listener.phase("training", recipe.optimization.batches)
        listener.progress(done)
        started, logged = time.perf_counter(), _size(files.log)
        code: int | None = None
        try:
            code = run_child(
                verl_config.command(files),
                files.log,
                lambda: _follow(job, files, start),
                verl_config.environment(decided),
            )
        finally:
            results.collect(recipe, directory, files, ended=code == 0)
            phases = results.seconds_by_phase(files, start)
            for phase, seconds in phases.items():
                watch.add(phase, seconds)
            watch.add("starting", time.perf_counter() - started - sum(phases.values()))
        if code:
            raise VerlFailed(f"verl ended with {code}: {_why(files.log, logged)}", code)
    listener.phase("writing the model", None)
    with watch.time("writing the model"):
        _write_model(files, directory)


def _refuse_long_prompts(problems: Sequence[Problem], path: str, limit: int, model: Model) -> None:
    tokenizer, options = load_tokenizer(path, model), model.chat_template_kwargs
    texts = [render(tokenizer, problem.messages, options) for problem in problems]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    longest = max(range(len(problems)), key=lengths.__getitem__)
    if lengths[longest] > limit:
        raise ValueError(
            f"{sum(length > limit for length in lengths)} of {len(problems)} prompts are longer "
            f"than verl.max_prompt_tokens, {limit}; the longest is {problems[longest].id} with "
            f"{lengths[longest]}"
        )


def _follow(job: Job, files: VerlFiles, start: Start) -> None:
    """Take over what verl has written since the last time."""
    if not files.metrics(start).stat().st_size:
        return
    results.collect(job.recipe, job.directory, files, ended=False)
    batches = job.directory.metrics()
    if batches:
        last = batches[-1]
        clipped = sum(last.get(f"clip/{side}") or 0.0 for side in ("high", "low", "dual"))
        reward = last.get("reward/mean")
        numbers = {} if reward is None else {"reward": reward}
        job.listener.progress(last["batch"], **numbers, clipped=clipped)


def _write_model(files: VerlFiles, directory: RunDirectory) -> None:
    """Gather the last checkpoint's shards into a model as `transformers` loads it."""
    checkpoint = files.last_checkpoint()
    assert checkpoint is not None, "verl saves after its last step"
    with directory.writing_model() as unfinished:
        place = ["--local_dir", str(checkpoint / "actor"), "--target_dir", str(unfinished)]
        command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp", *place]
        logged = _size(files.log)
        code = run_child(command, files.log, lambda: None)
        if code:
            raise VerlFailed(
                f"the checkpoint {checkpoint} could not be made into a model: "
                f"{_why(files.log, logged)}",
                code,
            )


def _size(log: Path) -> int:
    return log.stat().st_size if log.is_file() else 0


def _why(log: Path, begin: int) -> str:
    """Return why a program failed whose log begins at a byte of the file, and where that is."""
    with log.open("rb") as file:
        file.seek(max(begin, _size(log) - _TAIL))
        text = file.read().decode(errors="replace")
    return f"{reason(text)}\nits whole log is {log}"
