"""verl as a whole: its trainer, Ray, FSDP on two ranks, servers, episodes, checkpoints. Minutes.

`make test-verl` runs it, `make test-long` once more with a kill and a resume. The model is tiny and
knows sixteen sums; what is held here is that each part does what it says, and in `test_learning`
that the whole of it teaches a model something.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctpo.engines.batch_files import batch_file
from ctpo.engines.verl.paths import PATHS
from ctpo.report import read_run
from ctpo.sandbox import Sandbox
from ctpo.tir.programs import run_programs
from ctpo.tir.protocols import FENCE
from tests.engines.verl import whole
from tests.engines.verl.writing_model import save_writing_model, write_sums

pytestmark = [
    pytest.mark.verl,
    pytest.mark.skipif(
        importlib.util.find_spec("verl") is None, reason="verl has no release for this Python"
    ),
]

BATCHES, PROMPTS, ANSWERS = 4, 8, 4
CHANGES: dict[str, dict[str, object]] = {
    "data": {"train_problems": 64, "held_out_problems": 16},
    "rollout": {
        "prompts_per_batch": PROMPTS,
        "responses_per_prompt": ANSWERS,
        "max_response_tokens": 64,
        "max_calls": 2,
        "mismatch_cap": 5.0,
        "mismatch_level": "prefix",
    },
    "optimization": {
        "batches": BATCHES,
        "updates_per_batch": 2,
        "micro_batch": 4,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "warmup_fraction": 0.0,
        "checkpoint_every": 1,
        "kl_coef": 0.01,
        "entropy_coef": 0.001,
    },
    "evaluation": {"samples_per_problem": 1, "every": 0},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("writing")
    save_writing_model(directory)
    write_sums(directory / "sums.parquet", copies=4)
    return directory


def changes(model: Path) -> dict[str, dict[str, object]]:
    """What the recipe of the whole runs sets; its problems lie beside the model."""
    sums = str(model / "sums.parquet")
    return {**CHANGES, "data": {**CHANGES["data"], "train": sums, "held_out": sums}}


@dataclass(frozen=True)
class Run:
    path: Path
    printed: str
    rows: list[dict[str, Any]]  # what the last start trained on, on both ranks; see `spy`

    @property
    def log(self) -> str:
        return (self.path / "verl" / "log.txt").read_text(errors="replace")


KILLED = pytest.param("killed", marks=pytest.mark.long)


@pytest.fixture(scope="module", params=["whole", KILLED])
def run(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Two ranks; in one go, or all processes killed after the second batch, and resumed."""
    home = tmp_path_factory.mktemp(request.param)
    recipe, path, spied = home / "whole.toml", home / "run", home / "spied"
    recipe.write_text(whole.recipe(model, ranks=2, changes=changes(model)))
    start = [whole.CTPO, "train", recipe, "--output", path]
    if request.param == "killed":
        with whole.started(start, home / "first.txt", whole.environment()) as process:
            _wait_for_checkpoint(path, 2, process, home / "first.txt")
        start = [whole.CTPO, "train", "--resume", path]
    printed = whole.finished(
        start,
        home / "last.txt",
        whole.environment("tests.engines.verl.spy", CTPO_TEST_SPY=str(spied)),
    )
    return Run(path, printed, spied_rows(spied))


def spied_rows(directory: Path) -> list[dict[str, Any]]:
    files = sorted(directory.glob("*.pickle"))
    return [row for file in files for row in pickle.loads(file.read_bytes())]


def _wait_for_checkpoint(path: Path, batch: int, process: Any, log: Path) -> None:
    tracker = path / "checkpoints" / "latest_checkpointed_iteration.txt"
    until = time.monotonic() + whole.PATIENCE
    while not (tracker.is_file() and int(tracker.read_text() or 0) >= batch):
        if process.poll() is not None or time.monotonic() > until:
            verl_log = path / "verl" / "log.txt"
            said = verl_log if verl_log.is_file() else log
            pytest.fail(f"no checkpoint {batch}:\n{said.read_text(errors='replace')[-8000:]}")
        time.sleep(0.1)


def test_programs_are_run_and_what_they_print_is_masked(
    run: Run, model: Path, sandbox: Sandbox
) -> None:
    """Each span of mask 0 is the output of the program before it, run again here; 1 is the rest."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    spans = 0
    for row in run.rows:
        ids, mask = row["responses"], row["response_mask"]
        assert len(ids) == len(mask) == len(row["old_log_probs"])
        assert mask[0] == 1
        said = ""
        for policy, tokens in groupby(zip(mask, ids, strict=True), key=lambda pair: pair[0]):
            text = tokenizer.decode([token for _, token in tokens], skip_special_tokens=True)
            if policy:
                said = text
                continue
            call = FENCE.find_call(said)
            assert call is not None, f"{text!r} answers no program: {said!r}"
            [outcome] = run_programs([call], sandbox)
            assert text == FENCE.answer(outcome.shown, after=said, limit=512)
            spans += 1
        assert row["extra_fields"]["episode"]["tool_tokens"] == mask.count(0)
    assert spans > len(run.rows) / 4, f"{spans} programs in {len(run.rows)} answers"


def test_the_generator_and_the_trainer_agree_on_logprobs(run: Run) -> None:
    gaps = torch.tensor(
        [
            abs(rollout - old)
            for row in run.rows
            for rollout, old, policy in zip(
                row["rollout_log_probs"], row["old_log_probs"], row["response_mask"], strict=True
            )
            if policy
        ]
    )
    # fp32 on both sides, in batches of other shapes: the rounding of single tokens adds up to more.
    assert gaps.mean() < 1e-6
    assert gaps.max() < 3e-5
    # So small a mismatch leaves weights of 1.
    weights = torch.tensor(
        [
            weight
            for row in run.rows
            for weight, policy in zip(row["rollout_is_weights"], row["response_mask"], strict=True)
            if policy
        ]
    )
    torch.testing.assert_close(weights, torch.ones_like(weights), atol=1e-3, rtol=0)


def test_rewards_are_those_of_the_policys_own_answers(run: Run) -> None:
    """What is right in a group with wrong answers has a positive advantage, the rest a negative."""
    mixed = 0
    for row in run.rows:
        pairs = zip(row["advantages"], row["response_mask"], strict=True)
        values = {advantage for advantage, policy in pairs if policy}
        assert len(values) == 1
        [advantage] = values
        outcome = row["extra_fields"]["reward_extra_info"]["outcome"]
        if outcome == "could-not-tell":  # a box that holds no number
            assert advantage == 0
        else:
            assert advantage == 0 or (advantage > 0) == (outcome == "right")
        mixed += advantage != 0
    assert mixed > len(run.rows) / 10


@pytest.mark.parametrize("run", [KILLED], indirect=True)
def test_a_killed_run_goes_on_behind_its_checkpoint(run: Run) -> None:
    trained, rest = divmod(len(run.rows), PROMPTS * ANSWERS)
    assert rest == 0
    assert trained <= BATCHES - 2  # the batches before the kill were not trained again
    resumed_from = BATCHES - trained
    assert f"setting global step to {resumed_from}" in run.log
    # verl saves a batch first and logs it afterwards: the kill may have come in between.
    batches = {line["batch"] for line in whole.lines(run.path / "metrics.jsonl")}
    assert set(range(1, BATCHES + 1)) - batches <= {resumed_from}


def test_every_batch_is_written_once(run: Run) -> None:
    files = sorted(file.name for file in (run.path / "positions.parquet").iterdir())
    assert files == [batch_file(batch) for batch in range(1, BATCHES + 1)]
    metrics = whole.lines(run.path / "metrics.jsonl")
    batches = [line["batch"] for line in metrics]
    assert batches == sorted(set(batches))
    assert len(batches) >= BATCHES - 1  # see the kill above
    for line in metrics:
        assert line["on_policy/log_rho_max"] < 1e-3  # nothing has moved before the first update
        assert line["sampler/staleness"] == 0
        assert line["grad_norm"] is not None
        assert line["kl/reference"] >= 0


def test_statistics_by_position_hold_each_token_once(run: Run) -> None:
    """Over two ranks, two updates a batch and their micro-batches, and after a resume."""
    positions = pq.read_table(run.path / "positions.parquet").to_pydict()
    first = BATCHES - len(run.rows) // (PROMPTS * ANSWERS) + 1
    counted = sum(
        tokens
        for batch, tokens in zip(positions["batch"], positions["tokens"], strict=True)
        if batch >= first
    )
    assert counted == sum(sum(row["response_mask"]) for row in run.rows)


def test_the_second_update_of_a_batch_is_off_policy(run: Run) -> None:
    metrics = whole.lines(run.path / "metrics.jsonl")
    assert max(line["log_rho/max"] for line in metrics) > 1e-2


def test_the_weights_have_moved(run: Run, model: Path) -> None:
    # verl's merger writes bfloat16, whatever the training was in.
    before = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    after = AutoModelForCausalLM.from_pretrained(run.path / "model", dtype=torch.bfloat16)
    assert {n for n, _ in before.named_parameters()} == {n for n, _ in after.named_parameters()}
    moved = {
        name: not torch.equal(parameter, before.get_parameter(name))
        for name, parameter in after.named_parameters()
    }
    # The steps of norms, which are near 1, can be lost in rounding.
    assert all(changed for name, changed in moved.items() if "norm" not in name), moved


def test_the_report_reads_the_run(run: Run) -> None:
    assert (run.path / "report.html").stat().st_size > 50_000
    read = read_run(run.path)
    assert read.positions is not None
    assert set(read.evaluations) == {"start", "final"}
    assert len(read.series("grad_norm")[0]) >= BATCHES - 1


@pytest.mark.long
def test_answers_of_older_weights_have_ratios_of_their_own(model: Path, tmp_path: Path) -> None:
    """verl alone and asynchronous, with the generator's log-probs for the old ones.

    So staleness alone moves the ratios. The command is that of a user who has a job already and
    adds the loss, the loop and the reward to it.
    """
    problems, metrics = model / "sums.parquet", tmp_path / "metrics.jsonl"
    actor, rollout = whole.ACTOR, whole.ROLLOUT
    settings = [
        *whole.overrides(1),
        "hydra.searchpath=[pkg://ctpo.engines.verl.config]",
        "+policy_loss=ctpo",
        f"{actor}.policy_loss.positions={tmp_path / 'positions'}",
        f"{actor}.loss_agg_mode=seq-mean-token-mean",
        "algorithm.adv_estimator=ctpo_group",
        "algorithm.rollout_correction.bypass_mode=True",
        f"{rollout}.agent.default_agent_loop=ctpo",
        f"{rollout}.agent.agent_loop_config_path={PATHS['agent_loop']}",
        "+actor_rollout_ref.rollout.custom.episodes.instructions=''",
        "reward.custom_reward_function.path=pkg://ctpo.engines.verl.reward",
        "reward.custom_reward_function.name=compute_score",
        "trainer.v1.trainer_mode=colocate_async",
        f"{actor}.strategy=fsdp2",
        f"+{actor}.fsdp_config.mixed_precision.param_dtype=fp32",
        f"{actor}.optim.lr=3e-3",
        f"{actor}.ppo_mini_batch_size={PROMPTS}",
        f"{actor}.ppo_micro_batch_size_per_gpu=8",
        f"{whole.MODEL}.path={model}",
        f"+{whole.MODEL}.override_config.attn_implementation=sdpa",
        f"{whole.MODEL}.enable_gradient_checkpointing=False",
        f"{rollout}.name=transformers",
        f"{rollout}.tensor_model_parallel_size=1",
        f"{rollout}.n={ANSWERS}",
        f"{rollout}.agent.num_workers=1",
        f"{rollout}.log_prob_micro_batch_size_per_gpu=8",
        "reward.num_workers=1",
        f"data.train_files=[{problems}]",
        f"data.val_files=[{problems}]",
        f"data.train_batch_size={PROMPTS}",
        "data.max_prompt_length=64",
        "data.max_response_length=64",
        "trainer.nnodes=1",
        "trainer.n_gpus_per_node=1",
        "trainer.total_training_steps=4",
        "trainer.save_freq=-1",
        "trainer.val_before_train=False",
        "trainer.logger=[console,file]",
    ]
    whole.finished(
        [sys.executable, "-m", "verl.trainer.main_ppo", *settings],
        tmp_path / "log.txt",
        whole.environment(VERL_FILE_LOGGER_PATH=str(metrics)),
    )
    steps = [line["data"] for line in whole.lines(metrics)]
    assert [step["training/global_step"] for step in steps] == [1, 2, 3, 4]
    fresh: list[float] = []
    stale: list[float] = []
    for step in steps:
        staleness = step["training/off_policy/trajectory_staleness_worst/max"]
        (stale if staleness >= 1 else fresh).append(step["actor/ctpo/on_policy/log_rho_max"])
    assert fresh and max(fresh) < 1e-3
    assert stale and max(stale) > 10 * max(fresh)
    assert len(list((tmp_path / "positions").iterdir())) == 4
