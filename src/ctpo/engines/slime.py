"""CTPO on slime and miles: `--loss-type custom_loss --custom-loss-function-path` one of these."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ctpo.engines.custom_loss import RESTARTS, TRUNCATED, built, refuse

Reported = tuple[Tensor, dict[str, Tensor]]

_LOST = "slime and miles add this term in their own loss only; a custom loss goes without it"
_OF_OTHERS = (
    "it is a parameter of their own loss; ours are in the section ctpo of --custom-config-path"
)
_CORRECTION = "it is not applied to a custom loss; weigh with mismatch_cap"
_ARGS: dict[str, tuple[tuple[object, ...], str]] = {
    "context_parallel_size": (
        (1,),
        "each rank would hold two pieces of a response that are not neighbours, and a product over "
        "one of them is not the product over the response",
    ),
    "rollout_top_p": ((1.0,), TRUNCATED),
    "rollout_top_k": ((-1,), TRUNCATED),
    "use_tis": ((False,), _CORRECTION),
    "get_mismatch_metrics": ((False,), _CORRECTION),
    "custom_tis_function_path": ((None,), _CORRECTION),
    "use_opsm": ((False,), _CORRECTION),
    "use_kl_loss": ((False,), _LOST),
    "entropy_coef": ((0.0,), _LOST),
    "custom_pg_loss_reducer_function_path": ((None,), _LOST),
    "eps_clip": ((0.2,), _OF_OTHERS),
    "eps_clip_high": ((None, 0.2), _OF_OTHERS),
    "eps_clip_c": ((None,), _OF_OTHERS),
}


def slime_loss(
    args: Any,  # noqa: ANN401 - the namespace of all arguments
    batch: Mapping[str, Any],
    logits: Tensor,
    sum_of_sample_mean: Callable[[Tensor], Tensor],
) -> Reported:
    """Return the loss of a micro-batch, as slime asks for it; see `loss_of`."""
    from slime.backends.megatron_utils.loss import get_log_probs_and_entropy

    _, found = get_log_probs_and_entropy(logits, args=args, **_tokens(batch))
    return loss_of(args, batch, logits, found["log_probs"], sum_of_sample_mean)


def miles_loss(
    args: Any,  # noqa: ANN401
    batch: Mapping[str, Any],
    logits: Tensor,
    sum_of_sample_mean: Callable[[Tensor], Tensor],
) -> Reported:
    """Return the loss of a micro-batch, as miles asks for it; see `loss_of`."""
    from miles.backends.training_utils.loss_hub.logit_processors import get_log_probs_and_entropy

    found = get_log_probs_and_entropy(
        logits, args=args, max_seq_lens=batch.get("max_seq_lens"), **_tokens(batch)
    )
    return loss_of(args, batch, logits, found["log_probs"], sum_of_sample_mean)


def loss_of(
    args: Any,  # noqa: ANN401
    batch: Mapping[str, Any],
    logits: Tensor,
    logprobs: list[Tensor],
    sum_of_sample_mean: Callable[[Tensor], Tensor],
) -> Reported:
    """Return the loss of a micro-batch from its log-probs.

    The anchor is what the engine's own loss would take: the trainer's old log-probs, or the
    rollout's with `--use-rollout-logprobs`.

    Args:
        args: All arguments; `args.ctpo` holds `objective`, the preset's name, `mismatch_cap`,
            `positions`, `updates_per_batch` and the preset's parameters.
        batch: Lists with one tensor [T_i] per sample: `advantages`, `loss_masks`, `log_probs` and
            `rollout_log_probs`.
        logits: Of the model, which the gradient flows to.
        logprobs: log π_θ(a_t|s_t) in nats, [T_i] each.
        sum_of_sample_mean: The engine's reduction: of one value per token, all samples in a row.

    Raises:
        ValueError: A setting has no effect or would change the ratio, or log-probs are missing.
    """
    refuse(args, _ARGS, "args.")
    if args.advantage_estimator in ("gspo", "cispo"):
        raise ValueError(
            f"args.advantage_estimator is {args.advantage_estimator!r}, which chooses a ratio of "
            f"the engine's own loss; set 'grpo', and objective: {args.advantage_estimator} in the "
            "section ctpo of --custom-config-path"
        )
    settings = dict(getattr(args, "ctpo", None) or {})
    if "anchor" in settings:
        raise ValueError(
            f"ctpo.anchor is {settings['anchor']!r}; leave it out, it is --use-rollout-logprobs'"
        )
    if "positions" in settings and args.recompute_loss_function:
        raise ValueError(
            "args.recompute_loss_function is True beside ctpo.positions: every token would be "
            "counted twice; leave one out"
        )
    if not sum(map(len, logprobs)):
        return 0 * logits.sum(), {"loss": logits.new_zeros(()), "ctpo/weight": logits.new_zeros(())}
    _warn_of_splits(batch)
    out = built(settings | {"anchor": "rollout" if args.use_rollout_logprobs else "old"})(
        logprobs,
        batch["advantages"],
        [mask > 0 for mask in batch["loss_masks"]],
        old=batch.get("log_probs") or None,
        rollout=batch.get("rollout_log_probs") or None,
    )
    loss = sum_of_sample_mean(torch.cat(out.per_token))
    weight = sum_of_sample_mean(torch.cat(out.weights).detach())
    return loss, {"loss": loss.detach(), "ctpo/weight": weight}


def _tokens(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: batch[key] for key in ("unconcat_tokens", "total_lengths", "response_lengths")}


def _warn_of_splits(batch: Mapping[str, Any]) -> None:
    """Warn where samples are parts of one rollout, whose means divide by the tokens of all."""
    sums = batch.get("rollout_mask_sums")
    if sums is None:
        return
    own = torch.stack([mask.sum() for mask in batch["loss_masks"]])
    if bool((torch.as_tensor(sums, device=own.device) != own).any()):
        warnings.warn(f"samples of this batch are parts of one rollout: {RESTARTS}", stacklevel=3)
