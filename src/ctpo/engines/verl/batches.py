"""What verl's trainer is told of the answers it is about to train on, and when it must stop.

An exception in an agent loop is a log line to verl, and a tool's is text for the policy. So the
count is taken in the trainer's own process, where an error ends the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from ctpo.engines.verl.episodes.record import RECORD
from ctpo.tir.episode import check_failures

logger = logging.getLogger(__name__)

PREFIX = "ctpo/"
# `trainer.v1.sampler.sampler_kwargs.max_failure_share`
SHARE_KEY, SHARE = "max_failure_share", 0.02


def watched(sample: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the replay buffer's `sample`: add metrics of the answers, stop if the sandbox failed."""

    def wrapper(self: Any, global_steps: int, partition_id: str, batch_size: int) -> Any:  # noqa: ANN401
        batch, metrics = sample(self, global_steps, partition_id, batch_size)
        if not batch.keys:
            raise RuntimeError(
                f"not one answer to {batch_size} problems was made; verl's log above says why"
            )
        first = _read(batch, batch.keys[:1])[0]
        if RECORD not in first and "graded" not in (first.get("reward_extra_info") or {}):
            return batch, metrics  # neither our episodes nor our reward
        answers = _read(batch, batch.keys)
        check_sandbox(answers, (self.sampler_kwargs or {}).get(SHARE_KEY, SHARE))
        groups = [key.rsplit("_", 2)[0] for key in batch.keys]
        # Where verl replaces what was lost, it has forgotten the keys by now.
        replaced = metrics.get("training/rollout_failure/evicted_samples", 0)
        failed = len(self.failure_keys[partition_id]) + replaced
        if failed:
            logger.error("verl lost answers to %d problems; its log says why", failed)
        found = answer_metrics(answers, groups) | {"rollout/failed_groups": failed}
        return batch, metrics | {PREFIX + name: value for name, value in found.items()}

    return wrapper


def _read(batch: Any, keys: Sequence[str]) -> list[Mapping[str, Any]]:  # noqa: ANN401
    """Return the extra fields of some answers of a batch, a `KVBatchMeta` of TransferQueue."""
    import transfer_queue

    data = transfer_queue.kv_batch_get(
        keys=keys, partition_id=batch.partition_id, select_fields=["extra_fields"]
    )
    return [getattr(value, "data", value) for value in data["extra_fields"]]


def check_sandbox(answers: Iterable[Mapping[str, Any]], most: float) -> None:
    """Stop where too many programs got no answer through no fault of their own.

    Args:
        answers: The extra fields of each answer.
        most: The share that is allowed.

    Raises:
        SandboxFailure: There are more.
    """
    records = [answer[RECORD] for answer in answers if RECORD in answer]
    failures = [failure for record in records for failure in record["failures"]]
    check_failures(failures, sum(len(record["statuses"]) for record in records), most)


def answer_metrics(answers: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> dict[str, float]:
    """Return means over answers, under the names that they have on every engine.

    Args:
        answers: The extra fields of each answer.
        groups: The problem of each.
    """
    return _reward_metrics(answers, groups) | _episode_metrics(
        [answer[RECORD] for answer in answers if RECORD in answer]
    )


def _reward_metrics(
    answers: Sequence[Mapping[str, Any]], groups: Sequence[str]
) -> dict[str, float]:
    infos = [answer.get("reward_extra_info") or {} for answer in answers]
    if not infos or any("graded" not in info for info in infos):
        return {}  # another reward function
    scores: dict[str, list[float]] = {group: [] for group in groups}
    for info, group in zip(infos, groups, strict=True):
        if info["graded"]:
            scores[group].append(info["score"])
    graded = [score for group in scores.values() for score in group]
    alike = sum(len(set(group)) < 2 for group in scores.values())
    found = {
        "reward/unknown": 1 - len(graded) / len(infos),
        "reward/zero_std_groups": alike / len(scores),
    }
    return found | ({"reward/mean": fmean(graded)} if graded else {})


def _episode_metrics(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    if not records:
        return {}
    statuses = [status for record in records for status in record["statuses"]]
    found = {"tool/calls_per_response": len(statuses) / len(records)}
    if statuses:
        failed = statuses.count("sandbox-failure")
        wrong = len(statuses) - failed - statuses.count("success")
        found |= {
            "tool/error_rate": wrong / len(statuses),
            "tool/timeout_rate": statuses.count("timeout") / len(statuses),
            "tool/failure_rate": failed / len(statuses),
            "tool/own_seconds": sum(r["own_seconds"] for r in records) / len(statuses),
            "tool/queue_seconds": sum(r["queue_seconds"] for r in records) / len(statuses),
        }
    if any("finish_reason" not in record for record in records):
        return found  # verl's own loop, which does not say how it ended
    return found | {
        "response/answered": fmean(r["finish_reason"] == "answered" for r in records),
        "response/void": fmean(r["void_turns"] > 0 for r in records),
        "tool/tokens_per_response": fmean(r["tool_tokens"] for r in records),
    }
