"""CTPO on NeMo-RL: a loss function for `grpo_train`, around NeMo-RL's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctpo.engines.adapters import installed
from ctpo.engines.custom_loss import TRUNCATED, CustomLoss, refuse

_CORRECTION = "it is a factor of NeMo-RL's own ratio; weigh with mismatch_cap"
_OF_OTHERS = "it is a parameter of NeMo-RL's own ratio; ours are in the section loss_fn.ctpo"
_LOSS: dict[str, tuple[tuple[object, ...], str]] = {
    "force_on_policy_ratio": ((False,), "every ratio would be 1"),
    "disable_ppo_ratio": ((False,), _OF_OTHERS),
    "sequence_level_importance_ratios": ((False,), _OF_OTHERS),
    "use_cispo": ((False,), _OF_OTHERS),
    "ratio_clip_min": ((0.2,), _OF_OTHERS),
    "ratio_clip_max": ((0.2,), _OF_OTHERS),
    "ratio_clip_c": ((None,), _OF_OTHERS),
    "truncated_importance_sampling_type": ((None,), _CORRECTION),
}
_SAMPLING = {"top_p": ((1.0, 1), TRUNCATED), "top_k": ((None, -1), TRUNCATED)}


def loss_function(config: Any) -> NeMoRLLoss:  # noqa: ANN401 - NeMo-RL's `MasterConfig`
    """Return the loss for a launcher to hand to `grpo_train` in place of the one from `setup`.

    Args:
        config: NeMo-RL's whole configuration. Its section `loss_fn` may have one more table,
            `ctpo`: `objective`, the preset's name, `anchor`, `mismatch_cap`, `positions`,
            `updates_per_batch` and the preset's parameters. `token_level_loss: false` is the
            paper's reduction.

    Raises:
        ModuleNotFoundError: The engine is not installed.
        ValueError: A setting has no effect or would change the ratio.
    """
    with installed("nemo-rl"):
        from nemo_rl.algorithms.loss.loss_functions import ClippedPGLossFn

    refuse(config.policy, {f"generation.{k}": v for k, v in _SAMPLING.items()}, "policy.")
    settings = config.loss_fn
    check(settings)
    return NeMoRLLoss(ClippedPGLossFn(settings), **(getattr(settings, "ctpo", None) or {}))


def check(settings: object) -> None:
    """Raise if NeMo-RL's section `loss_fn` holds what would do nothing, or change the ratio.

    Raises:
        ValueError: Names the setting, its value and what would be right.
    """
    refuse(settings, _LOSS, "loss_fn.")


class NeMoRLLoss:
    """Our loss in the place of the surrogate of NeMo-RL's own, which keeps all other terms.

    The own one is called with advantages of 0, and what is left of it is the KL term, the
    likelihood term of right answers, and the metrics that the trainer reads by name.

    Args:
        own: NeMo-RL's `ClippedPGLossFn`.
        **settings: Of `CustomLoss`.

    Raises:
        ValueError: As for `CustomLoss`.
    """

    def __init__(self, own: Any, **settings: Any) -> None:  # noqa: ANN401
        self.own = own
        self._loss = CustomLoss(**settings)
        self.loss_type, self.input_type = own.loss_type, own.input_type
        normalizations = own.metric_normalizations
        self.metric_normalizations = normalizations | {"ctpo/weight": normalizations["probs_ratio"]}

    def __call__(
        self,
        next_token_logprobs: Tensor,
        data: Any,  # noqa: ANN401 - a `BatchedDataDict`
        global_valid_seqs: Tensor,
        global_valid_toks: Tensor,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return a micro-batch's share of the loss, and metrics.

        Args:
            next_token_logprobs: log π_θ(a_t|s_t) in nats of tokens 1 to T-1, [B, T-1].
            data: [B, T] each: `advantages`, `token_mask`, `prev_logprobs`, the trainer's from
                before the first update, `generation_logprobs`; and `sample_mask` [B].
            global_valid_seqs: Responses of the mini-batch, over all ranks.
            global_valid_toks: Tokens of the mini-batch, over all ranks.

        Raises:
            ValueError: Log-probs that the anchor needs are missing.
        """
        rest = type(data)({**data, "advantages": torch.zeros_like(data["advantages"])})
        others, metrics = self.own(
            next_token_logprobs=next_token_logprobs,
            data=rest,
            global_valid_seqs=global_valid_seqs,
            global_valid_toks=global_valid_toks,
        )
        shifted = {
            name: data[name][:, 1:] if name in data else None
            for name in ("advantages", "token_mask", "prev_logprobs", "generation_logprobs")
        }
        mask = (shifted["token_mask"] * data["sample_mask"].unsqueeze(-1)) > 0
        out = self._loss(
            next_token_logprobs,
            shifted["advantages"],
            mask,
            old=shifted["prev_logprobs"],
            rollout=shifted["generation_logprobs"],
        )
        sums = out.per_token.sum(dim=-1)
        if self.loss_type.value == "token_level":
            loss = sums.sum() / (global_valid_toks + 1e-8)
        else:
            loss = (sums / mask.sum(dim=-1).clamp(min=1)).sum() / (global_valid_seqs + 1e-8)
        weight = out.weights.sum() / (global_valid_toks + 1e-8)
        whole = loss + others
        return whole, metrics | {"loss": whole.item(), "ctpo/weight": weight.item()}
