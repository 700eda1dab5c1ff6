"""What each engine hands to a loss, in the shape that its sources document.

For tests that run everywhere; `test_real_engines.py` runs the same through the engines' own code.
Each `run_*` gives back the loss of the whole batch and the gradient by each response.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from types import SimpleNamespace

import torch

from ctpo.engines import prime_rl, slime
from ctpo.engines.custom_loss import CustomLoss
from ctpo.engines.nemo_rl import NeMoRLLoss
from ctpo.engines.nemo_rl import check as check_nemo_rl
from ctpo.engines.roll import over
from ctpo.engines.skyrl import SkyRLLoss
from tests.engines import conformance

GARBAGE = -7.0


@dataclass
class LossInputs:
    """prime-rl's, [T] each."""

    trainer_logprobs: torch.Tensor
    inference_logprobs: torch.Tensor
    ref_logprobs: torch.Tensor | None
    advantages: torch.Tensor
    loss_mask: torch.Tensor
    loss_weights: torch.Tensor | None = None


@dataclass
class OffPolicyCorrection:
    tis_ratio_type: str | None = None
    sequence_mask_metric: str | None = None
    outlier_token_is_threshold_low: float | None = None
    outlier_token_is_threshold_high: float | None = None
    token_mask_is_threshold_low: float | None = None
    token_mask_is_threshold_high: float | None = None


@dataclass
class AlgorithmConfig:
    """SkyRL's `trainer.algorithm`, as far as a loss is concerned."""

    policy_loss_type: str = "ctpo"
    eps_clip_low: float = 0.2
    eps_clip_high: float = 0.2
    clip_ratio_c: float = 3.0
    use_tis: bool = False
    off_policy_correction: OffPolicyCorrection = field(default_factory=OffPolicyCorrection)


@dataclass
class ClippedPGLossConfig:
    """NeMo-RL's `loss_fn`."""

    force_on_policy_ratio: bool = False
    sequence_level_importance_ratios: bool = False
    use_cispo: bool = False
    ratio_clip_min: float = 0.2
    ratio_clip_max: float = 0.2
    ratio_clip_c: float | None = None
    truncated_importance_sampling_type: str | None = None


def megatron_args(**changes):
    """slime's and miles' arguments, as far as a loss is concerned."""
    given = dict(
        advantage_estimator="grpo",
        context_parallel_size=1,
        rollout_top_p=1.0,
        rollout_top_k=-1,
        use_rollout_logprobs=False,
        recompute_loss_function=False,
        use_tis=False,
        use_opsm=False,
        use_kl_loss=False,
        entropy_coef=0.0,
        eps_clip=0.2,
        eps_clip_high=0.2,
        eps_clip_c=None,
    )
    return SimpleNamespace(**given | changes)


def pipeline_config(**changes):
    """ROLL's `RLVRConfig`, as far as a loss is concerned."""
    given = dict(
        importance_sampling="token",
        use_pg_clip_range=False,
        pg_clip=0.2,
        dual_clip_loss=False,
        loss_agg_mode="seq-mean-token-mean",
        rl_loss_coef=1.0,
        enable_old_logprobs_recompute=True,
        force_disable_old_logprobs_recompute=False,
        train_infer_correction=SimpleNamespace(
            is_weight=SimpleNamespace(enabled=False), filters=[]
        ),
        actor_infer=SimpleNamespace(generating_args=SimpleNamespace(top_p=1.0, top_k=0)),
    )
    return SimpleNamespace(**given | changes)


def leaves(batch):
    return [r.logprobs.clone().requires_grad_() for r in batch]


def columns(batch):
    """Old log-probs, advantages and masks, [T_i] each."""
    return (
        [r.old_logprobs for r in batch],
        [torch.full_like(r.logprobs, r.advantage) for r in batch],
        [r.mask.float() for r in batch],
    )


def run_skyrl(preset, batch, config=None, loss=None, **settings):
    """Micro-batches of two, with advantages as `loss_reduction="sequence_mean"` divides them."""
    rows, (old, advantages, masks) = leaves(batch), columns(batch)
    advantages = [a / (len(batch) * m.sum()) for a, m in zip(advantages, masks, strict=True)]
    loss = loss or SkyRLLoss(preset, **settings)
    total = torch.zeros(())
    for start in range(0, len(batch), 2):
        part = slice(start, start + 2)
        share, found = loss(
            conformance.padded(rows[part], GARBAGE),
            conformance.padded(old[part], 0.0),
            advantages=conformance.padded(advantages[part], 1.0),
            config=config or AlgorithmConfig(),
            loss_mask=conformance.padded(masks[part], 0.0),
            rollout_logprobs=conformance.padded(old[part], 0.0),
        )
        assert all(isinstance(value, float) for value in found.values())
        total = total + share
    return total.detach(), torch.autograd.grad(total, rows)


def prime_rl_inputs(batch, rows):
    return [
        LossInputs(row, old, None, advantages, mask > 0)
        for row, old, advantages, mask in zip(rows, *columns(batch), strict=True)
    ]


def run_prime_rl(preset, batch, **settings):
    rows = leaves(batch)
    outputs = [
        prime_rl.loss(inputs, objective=preset, **settings)
        for inputs in prime_rl_inputs(batch, rows)
    ]
    loss = sum(o.loss for o in outputs) / sum(r.mask.sum() for r in batch)
    return loss.detach(), torch.autograd.grad(loss, rows)


def megatron_batch(batch):
    old, advantages, masks = columns(batch)
    return {"advantages": advantages, "loss_masks": masks, "log_probs": old}


def run_slime(preset, batch, args=None, **settings):
    rows, (_, _, masks) = leaves(batch), columns(batch)

    def sum_of_sample_mean(values):
        parts = values.split([len(row) for row in rows])
        return sum((v * m).sum() / m.sum() for v, m in zip(parts, masks, strict=True))

    args = args or megatron_args(ctpo={"objective": preset} | settings)
    total, _ = slime.loss_of(
        args, megatron_batch(batch), torch.zeros(1, 2, 3), rows, sum_of_sample_mean
    )
    loss = total / len(batch)
    return loss.detach(), torch.autograd.grad(loss, rows)


class LossType(Enum):
    TOKEN_LEVEL = "token_level"
    SEQUENCE_LEVEL = "sequence_level"


class ClippedPGLossFn:
    """NeMo-RL's, without a KL term: of advantages of 0 there is nothing left."""

    loss_type, input_type = LossType.SEQUENCE_LEVEL, "logprob"
    metric_normalizations = {"probs_ratio": "tokens"}

    def __call__(self, next_token_logprobs, data, global_valid_seqs, global_valid_toks):
        assert not data["advantages"].any()
        return torch.zeros(()), {"loss": 0.0, "gen_kl_error": 0.5}


def nemo_rl_data(batch):
    """Tokens 0 to T; the first has no log-prob."""
    old, advantages, masks = columns(batch)
    shifted = {"prev_logprobs": old, "generation_logprobs": old, "advantages": advantages}
    data = {
        name: conformance.padded([torch.cat([torch.zeros(1), v]) for v in values], 0.0)
        for name, values in shifted.items()
    }
    masks = [torch.cat([torch.zeros(1), m]) for m in masks]
    return data | {
        "token_mask": conformance.padded(masks, 0.0),
        "sample_mask": torch.ones(len(batch)),
    }


def run_nemo_rl(preset, batch, own=None, config=None, data=None, **settings):
    check_nemo_rl(config or ClippedPGLossConfig())
    rows = leaves(batch)
    loss = NeMoRLLoss(own or ClippedPGLossFn(), objective=preset, **settings)
    total, found = loss(
        next_token_logprobs=conformance.padded(rows, GARBAGE),
        data=data or nemo_rl_data(batch),
        global_valid_seqs=torch.tensor(len(batch)),
        global_valid_toks=torch.tensor(sum(int(r.mask.sum()) for r in batch)),
    )
    assert "gen_kl_error" in found  # which the trainer reads by name
    return total.detach(), torch.autograd.grad(total, rows)


class ActorWorker:
    """ROLL's, without KL and entropy terms: of advantages of 0 there is nothing left."""

    strategy: SimpleNamespace

    def get_old_log_probs_with_cache(self, data, log_probs):
        return data.batch["old_log_probs"]

    def loss_func(self, data, output_tensor):
        assert not data.batch["advantages"].any()
        for counts in (data.meta_info["batch_num_tokens"], data.meta_info["global_valid_samples"]):
            counts.setdefault("final_response_mask", counts["response_mask"])
        log_probs = self.strategy.op_compute_log_probs(logits=output_tensor)
        self.get_old_log_probs_with_cache(data, log_probs)
        return torch.zeros(()), {"actor/pg_loss@sum": 0.0}

    def compute_sample_weights(self, data, response_mask):
        return torch.ones(len(response_mask))


def agg_loss(loss_mat, loss_mask, loss_agg_mode, batch_num_tokens, global_valid_samples, weights):
    assert loss_agg_mode == "seq-mean-token-mean"
    means = (loss_mat * loss_mask).sum(dim=1) / loss_mask.sum(dim=1)
    return (means * weights).sum() / global_valid_samples


def roll_data(batch):
    old, advantages, masks = columns(batch)
    prompt = [torch.cat([torch.zeros(1), m]) for m in masks]
    return SimpleNamespace(
        batch={
            "advantages": conformance.padded(advantages, 1.0),
            "old_log_probs": conformance.padded(old, 0.0),
            "response_mask": conformance.padded(prompt, 0.0),
        },
        meta_info={
            "batch_num_tokens": {"response_mask": sum(int(r.mask.sum()) for r in batch)},
            "global_valid_samples": {"response_mask": len(batch)},
        },
    )


def run_roll(preset, batch, config=None, worker=None, data=None, **settings):
    rows = leaves(batch)
    worker = worker or over(ActorWorker, agg_loss, CustomLoss(preset, **settings))
    actor = worker.__new__(worker)
    actor.pipeline_config = config or pipeline_config()
    actor.strategy = SimpleNamespace(
        op_compute_log_probs=lambda logits, **_: conformance.padded(rows, GARBAGE)
    )
    data = data or roll_data(batch)
    loss, _ = actor.loss_func(data, None)
    assert data.batch["advantages"].any()  # given back
    return loss.detach(), torch.autograd.grad(loss, rows)


ENGINES = {
    "skyrl": (run_skyrl, "seq-mean-token-mean"),
    "prime_rl": (run_prime_rl, "token-mean"),
    "slime": (run_slime, "seq-mean-token-mean"),
    "nemo_rl": (run_nemo_rl, "seq-mean-token-mean"),
    "roll": (run_roll, "seq-mean-token-mean"),
}
"""How to run each, and what its reduction is called."""


def algorithm(**changes):
    return AlgorithmConfig(off_policy_correction=replace(OffPolicyCorrection(), **changes))
