"""verl as a whole, on a node whose sandbox cannot start. `make test-verl` runs it."""

import importlib.util
import sys

import pytest

from tests.engines.verl import whole
from tests.engines.verl.writing_model import save_writing_model, write_sums

pytestmark = [
    pytest.mark.long,
    pytest.mark.verl,
    pytest.mark.skipif(
        importlib.util.find_spec("verl") is None, reason="verl has no release for this Python"
    ),
]


def test_a_sandbox_that_cannot_run_anything_stops_the_run_before_its_first_update(tmp_path):
    """And says why, though each episode went on to its end and verl hides what fails in a tool.

    `ctpo train` would have seen it before it started verl, so verl is started alone here.
    """
    save_writing_model(tmp_path / "model")
    problems, metrics = tmp_path / "problems.parquet", tmp_path / "metrics.jsonl"
    write_sums(problems, copies=1)
    actor, rollout = whole.ACTOR, whole.ROLLOUT
    settings = [
        *whole.overrides(1),
        f"+{whole.MODEL}.override_config.attn_implementation=sdpa",
        "hydra.searchpath=[pkg://ctpo.engines.verl.config]",
        "+policy_loss=ctpo",
        f"{actor}.policy_loss.positions={tmp_path / 'positions'}",
        f"{actor}.loss_agg_mode=seq-mean-token-mean",
        "algorithm.adv_estimator=ctpo_group",
        f"{rollout}.agent.default_agent_loop=ctpo",
        f"+{rollout}.custom.episodes={{instructions:'',sandbox:{{preload:[no_such_module]}}}}",
        "reward.custom_reward_function.path=pkg://ctpo.engines.verl.reward",
        "reward.custom_reward_function.name=compute_score",
        f"{actor}.strategy=fsdp2",
        f"+{actor}.fsdp_config.mixed_precision.param_dtype=fp32",
        f"{actor}.ppo_mini_batch_size=8",
        f"{actor}.ppo_micro_batch_size_per_gpu=8",
        f"{whole.MODEL}.path={tmp_path / 'model'}",
        f"{rollout}.name=transformers",
        f"{rollout}.tensor_model_parallel_size=1",
        f"{rollout}.n=4",
        f"{rollout}.agent.num_workers=1",
        f"{rollout}.log_prob_micro_batch_size_per_gpu=8",
        "reward.num_workers=1",
        f"data.train_files=[{problems}]",
        f"data.val_files=[{problems}]",
        "data.train_batch_size=8",
        "data.max_prompt_length=64",
        "data.max_response_length=96",
        "trainer.nnodes=1",
        "trainer.n_gpus_per_node=1",
        "trainer.total_training_steps=2",
        "trainer.save_freq=-1",
        "trainer.val_before_train=False",
        "trainer.logger=[console,file]",
    ]
    printed = whole.finished(
        [sys.executable, "-m", "verl.trainer.main_ppo", *settings],
        tmp_path / "log.txt",
        whole.environment(VERL_FILE_LOGGER_PATH=str(metrics)),
        code=1,
    )
    assert "programs failed twice in the sandbox" in printed
    assert "No module named 'no_such_module'" in printed
    assert not whole.lines(metrics)
    assert not (tmp_path / "positions").exists()
