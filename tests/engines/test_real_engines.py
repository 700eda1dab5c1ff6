"""Our losses in the engines' own code: from their entry point to the loss and its gradient.

Each needs its engine: SkyRL as an installed package, the others, which no registry has, as a
checkout that you name: `CTPO_PRIME_RL=~/prime-rl pytest tests/engines/test_real_engines.py`.
"""

import importlib
import os
import pickle
import re
import sys
import tomllib
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typing_extensions

from tests.engines import conformance, stand_ins

PRESETS = pytest.mark.parametrize("preset", conformance.PRESETS)


def written(page, language="python"):
    """Return the lines that an engine's page tells users to write."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)[0]


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """Import a module of an engine, from a checkout that the environment names."""
    monkeypatch.chdir(tmp_path)  # ROLL leaves a folder of logs where it is imported

    def of(module, *folders):
        package = module.split(".")[0]
        variable = f"CTPO_{package.upper()}"
        if (checkout := os.environ.get(variable)) is not None:
            for folder in folders or ("",):
                monkeypatch.syspath_prepend(Path(checkout).expanduser() / folder)
        elif importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: name a checkout in {variable}")
        if sys.version_info < (3, 12):  # pydantic takes no other before
            monkeypatch.setattr("typing.TypedDict", typing_extensions.TypedDict)
        return importlib.import_module(module)

    return of


@PRESETS
def test_skyrl(engine, preset):
    ppo_utils = engine("skyrl.backends.skyrl_train.utils.ppo_utils")
    import cloudpickle
    from skyrl.train.config import AlgorithmConfig

    from ctpo.engines import skyrl

    name = skyrl.register(preset)
    assert name == ("ctpo-gspo" if preset == "gspo" else preset)
    try:
        # As its registry sends it to the workers.
        loss = pickle.loads(cloudpickle.dumps(ppo_utils.PolicyLossRegistry.get(name)))
    finally:
        ppo_utils.PolicyLossRegistry.unregister(name)
    batch = conformance.responses()
    # SkyRL divides the advantages itself; given so, its sum of two micro-batches is the mean.
    _, advantages, masks = stand_ins.columns(batch)
    divided = ppo_utils.apply_loss_reduction_to_advantages_minibatch(
        conformance.padded(advantages, 1.0),
        conformance.padded(masks, 0.0),
        "sequence_mean",
        micro_batch_size=2,
        max_seq_len=64,
    )
    config = AlgorithmConfig(policy_loss_type=name)
    value, gradients = stand_ins.run_skyrl(
        preset, batch, loss=loss, config=config, advantages=divided
    )
    conformance.check(value, gradients, preset, batch, "seq-mean-token-mean")
    config.off_policy_correction.token_mask_is_threshold_low = 0.5
    with pytest.raises(ValueError, match="holes"):
        stand_ins.run_skyrl(preset, batch, loss=loss, config=config)


def test_skyrls_page(engine):
    ppo_utils = engine("skyrl.backends.skyrl_train.utils.ppo_utils")
    from skyrl.train.config import SkyRLTrainConfig

    cfg = SkyRLTrainConfig()
    exec(written("skyrl.md"), {"cfg": cfg, "initialize_ray": lambda _: None})
    assert cfg.trainer.algorithm.policy_loss_type == "ctpo"
    ppo_utils.PolicyLossRegistry.unregister("ctpo")


@PRESETS
def test_prime_rl(engine, preset):
    rl_loss = engine("prime_rl.trainer.rl.loss", "src", "packages/prime-rl-configs/src")
    from prime_rl.configs.trainer import CustomLossConfig

    config = CustomLossConfig(**tomllib.loads(written("prime-rl.md", "toml"))["trainer"]["loss"])
    config.kwargs["objective"] = preset
    batch = conformance.responses()
    rows, (old, advantages, masks) = stand_ins.leaves(batch), stand_ins.columns(batch)
    loss, metrics = rl_loss.compute_loss(
        rows,
        old,
        None,
        advantages,
        [mask > 0 for mask in masks],
        None,
        None,
        None,
        rl_loss_fn=rl_loss.setup_rl_loss_fn(config),
        rl_scale=sum(int(r.mask.sum()) for r in batch),
        ce_scale=1,
        ref_kl_scale=1,
    )
    gradients = torch.autograd.grad(loss, rows)
    conformance.check(loss.detach(), gradients, preset, batch, "token-mean")
    assert metrics["ctpo/k3"].shape == (4,)


def from_logits():
    """A batch as Megatron's trainers have it: prompts and responses in a row, and their logits."""
    random = torch.Generator().manual_seed(3)
    batch = conformance.responses()
    prompts = [3, 1, 4, 2]
    lengths = [len(r.logprobs) for r in batch]
    totals = [p + n for p, n in zip(prompts, lengths, strict=True)]
    tokens = [torch.randint(0, 11, (n,), generator=random) for n in totals]
    logits = torch.randn(1, sum(totals), 11, generator=random).requires_grad_()
    rows = logits.log_softmax(dim=-1)[0].split(totals)
    logprobs = [
        row[p - 1 : -1].gather(1, own[p:, None]).squeeze(1)
        for row, own, p in zip(rows, tokens, prompts, strict=True)
    ]
    for response, new in zip(batch, logprobs, strict=True):
        response.old_logprobs = new.detach() - response.logprobs + response.old_logprobs
        response.logprobs = new.detach()
    given = stand_ins.megatron_batch(batch) | {
        "unconcat_tokens": tokens,
        "total_lengths": totals,
        "response_lengths": lengths,
        "rollout_mask_sums": [r.mask.sum() for r in batch],
    }
    return batch, logits, logprobs, given


def alone(monkeypatch, *groups):
    """Stand in for Megatron, which needs a GPU: one rank in each of its groups."""
    above = None
    for name in ("megatron.core.mpu", "megatron.core", "megatron"):
        module = types.ModuleType(name)
        if above is not None:
            setattr(module, above.__name__.rpartition(".")[2], above)
        monkeypatch.setitem(sys.modules, name, module)
        above = module
    mpu = sys.modules["megatron.core.mpu"]
    for name in groups:
        setattr(mpu, f"get_{name}_world_size", lambda **_: 1)
        setattr(mpu, f"get_{name}_rank", lambda **_: 0)
        setattr(mpu, f"get_{name}_group", lambda **_: None)


def megatron_args(preset, name, **more):
    return stand_ins.megatron_args(
        loss_type="custom_loss",
        custom_loss_function_path=f"ctpo.engines.slime.{name}",
        calculate_per_token_loss=False,
        allgather_cp=False,
        log_probs_chunk_size=-1,
        rollout_temperature=1.0,
        qkv_format="thd",
        ctpo={"objective": preset},
        **more,
    )


@PRESETS
@pytest.mark.filterwarnings("ignore:slime grad coalesce patch")
def test_slime(engine, preset, monkeypatch):
    if "slime" not in sys.modules:
        alone(monkeypatch, "context_parallel", "tensor_model_parallel", "data_parallel")
    module = engine("slime.backends.megatron_utils.loss")
    batch, logits, logprobs, given = from_logits()
    value, _, _ = module.loss_function(megatron_args(preset, "slime_loss"), given, 1, 4, logits)
    check_logits(value, logits, logprobs, preset, batch)


@PRESETS
def test_miles(engine, preset, monkeypatch):
    module = engine("miles.backends.training_utils.loss")
    one = SimpleNamespace(rank=0, size=1, group=None)
    monkeypatch.setattr(
        "miles.backends.training_utils.parallel._parallel_state",
        SimpleNamespace(intra_dp=one, intra_dp_cp=one, cp=one, tp=one, is_ulysses_cp=False),
    )
    batch, logits, logprobs, given = from_logits()
    # Else its log-probs are Megatron's kernel's.
    args = megatron_args(preset, "miles_loss", true_on_policy_mode=True)
    value, _, _ = module.loss_function(args, given, 1, logits, num_rollouts=4)
    check_logits(value, logits, logprobs, preset, batch)


def check_logits(value, logits, logprobs, preset, batch):
    """Compare with ours, taken through the same logits."""
    (given,) = torch.autograd.grad(value, logits, retain_graph=True)
    expected, by_response, _ = conformance.on_plain_tensors(preset, batch, "seq-mean-token-mean")
    (right,) = torch.autograd.grad(logprobs, logits, by_response)
    torch.testing.assert_close(value.detach(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(given, right, rtol=1e-5, atol=1e-7)


@PRESETS
@pytest.mark.parametrize("token_level", [False, True])
def test_nemo_rl(engine, preset, token_level):
    module = engine("nemo_rl.algorithms.loss.loss_functions")
    from nemo_rl.distributed.batched_data_dict import BatchedDataDict

    from ctpo.engines.nemo_rl import loss_function

    section = module.ClippedPGLossConfig(
        token_level_loss=token_level,
        reference_policy_kl_penalty=0.0,
        ctpo={"objective": preset},
    )
    config = SimpleNamespace(loss_fn=section, policy={"generation": {"top_p": 1.0, "top_k": None}})
    batch = conformance.responses()
    data = BatchedDataDict(stand_ins.nemo_rl_data(batch))
    value, gradients = stand_ins.run_nemo_rl(preset, batch, loss=loss_function(config), data=data)
    reduction = "token-mean" if token_level else "seq-mean-token-mean"
    conformance.check(value, gradients, preset, batch, reduction)
    given = {"config": config}
    exec(written("nemo-rl.md"), given)
    assert (given["loss_fn"].loss_type.value == "token_level") is token_level
    config.policy["generation"]["top_p"] = 0.9
    with pytest.raises(ValueError, match=r"policy.generation.top_p is 0.9"):
        loss_function(config)


def test_nemo_rls_other_terms_stay_its_own(engine):
    """A KL term is added as NeMo-RL's own loss adds it."""
    module = engine("nemo_rl.algorithms.loss.loss_functions")
    from nemo_rl.distributed.batched_data_dict import BatchedDataDict

    from ctpo.engines.nemo_rl import NeMoRLLoss

    batch, values = conformance.responses(), {}
    data = BatchedDataDict(stand_ins.nemo_rl_data(batch))
    data["reference_policy_logprobs"] = data["prev_logprobs"] - 0.1
    for penalty in (0.0, 0.5):
        own = module.ClippedPGLossFn(
            module.ClippedPGLossConfig(reference_policy_kl_penalty=penalty)
        )
        ours, _ = stand_ins.run_nemo_rl("ctpo", batch, loss=NeMoRLLoss(own), data=data)
        theirs, _ = stand_ins.run_nemo_rl("ctpo", batch, loss=own, data=data)
        values[penalty] = ours, theirs
    ours, theirs = (values[0.5][i] - values[0.0][i] for i in range(2))
    assert ours > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@PRESETS
@pytest.mark.parametrize("mode", ["seq-mean-token-mean", "token-mean"])
def test_roll(engine, preset, mode):
    engine("roll.pipeline.rlvr.actor_worker")
    from tensordict import TensorDict

    from ctpo.engines.roll import worker

    given: dict[str, type] = {}
    exec(written("roll.md"), given)
    assert given["ActorWorker"].__mro__[1].__module__ == "roll.pipeline.rlvr.actor_worker"
    config = stand_ins.pipeline_config(
        loss_agg_mode=mode,
        use_kl_loss=False,
        entropy_loss_coef=0.0,
        difficulty_loss_weight=False,
        length_loss_weight=False,
    )
    batch = conformance.responses()
    data = stand_ins.roll_data(batch)
    data.batch["input_ids"] = data.batch["response_mask"].long()
    data.batch["ref_log_probs"] = data.batch["old_log_probs"]
    rows = {k: v for k, v in data.batch.items()}
    data.batch = TensorDict(rows, batch_size=[len(batch)])
    data.batch["train_infer_is_weight"] = torch.ones_like(data.batch["advantages"])
    data.non_tensor_batch = {}
    value, gradients = stand_ins.run_roll(
        preset, batch, config=config, worker=worker(preset), data=data
    )
    conformance.check(value, gradients, preset, batch, mode)
