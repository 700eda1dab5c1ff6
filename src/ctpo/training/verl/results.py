"""What verl leaves behind, in the run directory's own terms: metrics, evaluations, times.

verl logs each step to a file that every start of a run begins anew, and dumps what it rolled out
and what it evaluated. All of it is read again whenever it is needed: nothing depends on this
process having been there when it was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ctpo.evaluation import Evaluation
from ctpo.grading import SCORES
from ctpo.training.recipe.recipe import Recipe
from ctpo.training.run_directory import RunDirectory
from ctpo.training.verl.files import Start, VerlFiles

# Names of verl and ours: of the step's last update the gradient norm and the learning rate, of the
# rest means over the step.
_FROM_VERL = {
    "actor/loss": "loss",
    "actor/grad_norm": "grad_norm",
    "actor/lr": "learning_rate",
    "actor/entropy": "entropy",
    "actor/kl_loss": "kl/reference",
    "training/rollout_probs_diff_max": "sampler/probability_gap_max",
    "training/rollout_probs_diff_mean": "sampler/probability_gap_mean",
    "training/off_policy/trajectory_staleness_worst/mean": "sampler/staleness",
}
# What our loss, our episodes and our reward log has our names behind these.
_OURS = ("actor/ctpo/", "ctpo/")

# Phases of a run and verl's own, whose seconds they are.
_PHASES = {
    "generation": ("gen",),
    "updates": ("old_log_prob", "adv", "update_actor"),
    "evaluation": ("testing",),
    "checkpoints": ("save_checkpoint",),
}


def logged(files: VerlFiles) -> dict[int, dict[str, Any]]:
    """Return what verl logged of every step that counts.

    What a later start went back behind does not.
    """
    steps: dict[int, dict[str, Any]] = {}
    for start in files.starts():
        steps = {number: data for number, data in steps.items() if number <= start.after}
        steps |= dict(_steps(files.metrics(start)))
    return steps


def _steps(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the steps of one file; a line that is being written is not there yet."""
    for line in _lines(file):
        # An evaluation before the first step is logged alone.
        if "training/global_step" in line["data"]:
            yield line["step"], line["data"]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if file.is_file():
        for text in file.read_text(encoding="utf-8").splitlines(keepends=True):
            if text.endswith("\n"):
                yield json.loads(text)


def metrics_of(step: int, data: Mapping[str, Any], updates_per_batch: int) -> dict[str, Any]:
    """Return one batch's metrics under our names."""
    metrics: dict[str, Any] = {
        "batch": step,
        "step": step * updates_per_batch,
    }
    metrics |= {ours: data[theirs] for theirs, ours in _FROM_VERL.items() if theirs in data}
    metrics |= {
        name.removeprefix(prefix): value
        for prefix in _OURS
        for name, value in data.items()
        if name.startswith(prefix)
    }
    whole, tools = data.get("response_length/mean"), metrics.get("tool/tokens_per_response")
    if whole is not None and tools is not None:
        metrics["response/length"] = whole - tools  # the policy's own tokens, as everywhere
    return metrics


def collect(recipe: Recipe, directory: RunDirectory, files: VerlFiles, *, ended: bool) -> None:
    """Bring the run directory's metrics and evaluations up to date.

    Args:
        recipe: The run's.
        directory: Receives them.
        files: What verl has written so far.
        ended: Whether verl has ended by itself, so that every dump is whole.
    """
    known = {line["batch"] for line in directory.metrics()}
    for step, data in sorted(logged(files).items()):
        if step not in known:
            directory.add_metrics(metrics_of(step, data, recipe.optimization.updates_per_batch))
            known.add(step)
    keep = recipe.rollout.keep_every
    for dump in files.rollouts.glob("*.jsonl"):
        written = ended or int(dump.stem) < max(known, default=0)
        if written and (not keep or int(dump.stem) % keep):
            dump.unlink()
    expected = recipe.evaluation.samples_per_problem * _rows(files.held_out)
    for file in files.validations.glob("*.jsonl"):
        name = _evaluation_name(int(file.stem), recipe.optimization.batches)
        made = directory.path / "evaluations" / f"{name}.json"
        if made.is_file() and made.stat().st_mtime >= file.stat().st_mtime:
            continue
        rows = list(_lines(file))
        written = ended or int(file.stem) < max(known, default=0)
        if rows and (len(rows) >= expected or written):
            directory.add_evaluation(name, int(file.stem), evaluation_of(rows), None)


def _rows(file: Path) -> int:
    return pq.read_metadata(file).num_rows if file.is_file() else 0


def _evaluation_name(batch: int, batches: int) -> str:
    special = {0: "start", batches: "final"}
    return special.get(batch, f"batch-{batch:04d}")


def evaluation_of(rows: Sequence[Mapping[str, Any]]) -> Evaluation:
    """Return the evaluation that a dump of verl's validation holds.

    Args:
        rows: One per answer, each with `problem`, `source` and `outcome`.

    Raises:
        ValueError: A row has no problem's name: the problems were not written by `ctpo data`.
    """
    if not all(row.get("problem") for row in rows):
        raise ValueError(
            "verl's validation names no problem: each row of the data needs extra_info.id, which "
            "`ctpo data` writes"
        )
    return Evaluation.of((row["source"], row["problem"], SCORES[row["outcome"]]) for row in rows)


def seconds_by_phase(files: VerlFiles, start: Start) -> dict[str, float]:
    """Return how long the phases of one start of the run took."""
    steps = [data for _, data in _steps(files.metrics(start))]
    return {
        phase: sum(data.get(f"timing_s/{name}", 0.0) for data in steps for name in names)
        for phase, names in _PHASES.items()
    }
