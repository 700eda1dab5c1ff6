"""A recipe from end to end, in small: what is written, that it repeats, that it resumes."""

import dataclasses
import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from ctpo.engines.batch_files import batch_file
from ctpo.report import write_report
from ctpo.tir.storage import read_trajectories
from ctpo.training.evaluating.evaluate import evaluate_request
from ctpo.training.evaluating.request import EvaluationRequest
from ctpo.training.listening import Quiet
from ctpo.training.plan import Assumptions, plan, shape_of
from ctpo.training.recipe.loading import load_recipe
from ctpo.training.run import run
from ctpo.training.run_directory import RunDirectory
from ctpo.training.tiny.warm_start import WarmStartFailed, fingerprint

SMALL = [
    "model.tiny.hidden_size=32",
    "model.tiny.layers=1",
    "model.tiny.intermediate_size=32",
    "warm_start.problems=300",
    "warm_start.transcripts=300",
    "warm_start.target_accuracy=0.0",
    "warm_start.check_every=60",
    "warm_start.decay_steps=20",
    "data.train_problems=70",
    "data.held_out_problems=14",
    "rollout.prompts_per_batch=4",
    "rollout.responses_per_prompt=4",
    "rollout.max_response_tokens=80",
    "optimization.batches=4",
    "optimization.updates_per_batch=4",
    "optimization.micro_batch=2",
    "optimization.checkpoint_every=2",
    "optimization.kl_coef=0.05",
    "optimization.entropy_coef=0.01",
    "evaluation.samples_per_problem=2",
    "evaluation.every=2",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def finished(path, cache, *changes):
    directory = RunDirectory.create(path, load_recipe("tiny", SMALL + list(changes)))
    run(directory.recipe, directory, cache=cache)
    return directory


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    return finished(tmp_path_factory.mktemp("runs") / "whole", cache)


def test_a_plan_is_right_about_a_run_whose_answers_it_is_told_of(whole):
    """Tokens and calls to the digit, storage as a bound that Parquet stays below, but not far."""
    trajectories = read_trajectories(whole.path / "trajectories.parquet")
    rollout, n = whole.recipe.rollout, len(trajectories)
    prompts = sum(len(t.prompt_ids) for t in trajectories)
    responses = sum(len(t.response_ids) for t in trajectories)
    calls = sum(len(t.tool_results) for t in trajectories)
    text = sum(len(t.text) for t in trajectories)
    given = Assumptions(
        prompt_tokens=round(prompts / n),
        mean_share=responses / n / rollout.max_response_tokens,
        call_share=calls / n / rollout.max_calls,
        output_share=0,
        characters=text / (prompts + responses),
    )
    rows = {what: amount for what, _, amount, _ in plan(whole.recipe, 1, given)}
    batches = whole.recipe.optimization.batches
    assert rows["tokens"] * 1e6 == pytest.approx((prompts + responses) / batches, rel=0.02)
    assert rows["tool calls"] * 1e3 == pytest.approx(calls / batches)
    files = (whole.path / "trajectories.parquet").glob("*.parquet")
    stored = sum(file.stat().st_size for file in files) / 1e9
    assert stored < rows["trajectories kept, at most"] < 3 * stored
    model = AutoModelForCausalLM.from_pretrained(whole.last_checkpoint())
    shape = dataclasses.replace(shape_of(whole.recipe), vocab_size=model.config.vocab_size)
    assert shape.parameters == model.num_parameters()


def lines(directory):
    return [json.loads(x) for x in (directory.path / "metrics.jsonl").read_text().splitlines()]


def test_everything_promised_is_written(whole):
    metrics = lines(whole)
    assert [m["batch"] for m in metrics] == [1, 2, 3, 4]
    assert [m["step"] for m in metrics] == [4, 8, 12, 16]
    assert all(m["on_policy/log_rho_max"] == 0.0 for m in metrics)
    assert all(m["sampler/logprob_gap_max"] < 1e-3 for m in metrics)
    # The reference is the policy at the start.
    assert 0 <= metrics[0]["kl/reference"] < metrics[-1]["kl/reference"]
    environment = json.loads((whole.path / "environment.json").read_text())
    assert environment["packages"]["torch"]
    phases = json.loads((whole.path / "timing.json").read_text())["phases"]
    assert set(phases) == {"warm start", "evaluation", "updates", "generation", "tools"}
    assert all(seconds >= 0 for seconds in phases.values())
    names = sorted(path.name for path in (whole.path / "evaluations").iterdir())
    assert names == ["batch-0002.json", "final.json", "start.json"]
    assert whole.last_checkpoint().name == "checkpoint-16"
    AutoModelForCausalLM.from_pretrained(whole.model)
    page = write_report(whole.path)
    assert page.name == "report.html"


def test_trajectories_on_disk_are_what_was_trained_on(whole):
    for number, metrics in enumerate(lines(whole), start=1):
        file = whole.path / "trajectories.parquet" / f"batch-{number:04d}.parquet"
        trajectories = read_trajectories(file)
        assert len(trajectories) == 16
        rewards = [t.reward for t in trajectories if t.reward is not None]
        assert metrics["reward/mean"] == pytest.approx(sum(rewards) / len(rewards))
        for start in range(0, 16, 4):
            group = trajectories[start : start + 4]
            assert len({t.problem_id for t in group}) == 1
            assert sum(t.advantage or 0.0 for t in group) == pytest.approx(0, abs=1e-5)
        for t in trajectories:
            assert t.old_logprobs is not None
            off = [p for p, policy in zip(t.old_logprobs, t.mask, strict=True) if not policy]
            assert not any(off)
            assert t.old_logprobs == pytest.approx(t.sampler_logprobs, abs=1e-3)


def test_transcripts_hold_the_ratios_that_the_loss_saw(whole):
    objective, found = whole.recipe.objective.build(), 0
    for row in pq.read_table(whole.path / "transcripts.parquet").to_pylist():
        file = whole.path / "trajectories.parquet" / batch_file(row["batch"])
        said = "".join(row["tokens"]).replace("<|im_end|>", "")
        own = next(
            t
            for t in read_trajectories(file)
            if (t.problem_id, t.mask, t.text) == (row["problem_id"], row["mask"], said)
        )
        assert row["question"]
        off = [x for x, policy in zip(row["log_ratios"], row["mask"], strict=True) if not policy]
        assert not any(off)
        # Before the first update of a batch the policy has not moved.
        assert (max(map(abs, row["log_ratios"])) == 0) == (row["updates"] == 0)
        old = torch.tensor(own.old_logprobs)
        logprobs, mask = old + torch.tensor(row["log_ratios"]), torch.tensor(own.mask)
        counts = objective(logprobs[None], old[None], torch.tensor([own.advantage]), mask[None])
        assert sum(row["clipped"]) == round(
            sum(counts.statistics.summary()[f"clip/{s}"] for s in ("high", "low", "dual"))
            * sum(own.mask)
        )
        found += 1
    assert found >= 3


def test_statistics_by_position_count_every_policy_token_once(whole):
    table = pq.read_table(whole.path / "positions.parquet").to_pylist()
    for number in range(1, 5):
        file = whole.path / "trajectories.parquet" / f"batch-{number:04d}.parquet"
        lengths = [sum(t.mask) for t in read_trajectories(file)]
        rows = [row for row in table if row["batch"] == number]
        for row in rows:
            t = row["position_low"]
            if t == row["position_high"]:
                assert row["tokens"] == sum(length >= t for length in lengths)
        assert sum(row["tokens"] for row in rows) == sum(lengths)


def test_the_same_seed_gives_the_same_metrics_to_the_last_digit(whole, cache, tmp_path):
    again = finished(tmp_path / "again", cache)
    assert lines(again) == lines(whole)
    for name in ("start", "batch-0002", "final"):
        first, second = (d.path / "evaluations" / f"{name}.json" for d in (whole, again))
        assert first.read_bytes() == second.read_bytes()
    other = finished(tmp_path / "other", cache, "seed=1")
    assert lines(other) != lines(whole)


@pytest.mark.parametrize("batch", [2, 4])
def test_a_run_taken_up_again_writes_what_the_whole_one_did(whole, cache, tmp_path, batch):
    # As if killed beyond batch 2, or beyond the last: lines behind the checkpoint are there.
    path = tmp_path / "killed"
    shutil.copytree(whole.path, path)
    if batch == 2:
        shutil.rmtree(path / "checkpoints" / "checkpoint-16")
    shutil.rmtree(path / "model")
    (path / "evaluations" / "final.json").unlink()
    directory = RunDirectory.open(path)
    run(directory.recipe, directory, cache=cache)
    assert lines(directory) == lines(whole)
    for table in ("positions.parquet", "trajectories.parquet", "transcripts.parquet"):
        assert pq.read_table(path / table).equals(pq.read_table(whole.path / table))
    first, second = (d.path / "evaluations" / "final.json" for d in (whole, directory))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("decoding", ["sampled", "greedy"])
def test_ctpo_eval_finds_of_the_run_what_training_wrote_of_it(whole, tmp_path, decoding):
    settings = whole.recipe.evaluation
    request = EvaluationRequest(
        model=str(whole.path),
        temperature=settings.temperature if decoding == "sampled" else 0.0,
        seed=whole.recipe.seed,
        batch_size=settings.batch_size,
    )
    evaluate_request(request, tmp_path / "out", Quiet())
    (found,) = json.loads((tmp_path / "out/summary.json").read_text())["benchmarks"].values()
    written = json.loads((whole.path / "evaluations/final.json").read_text())[decoding]
    k = written["samples_per_problem"]
    assert found["figures"][f"avg@{k}"] == written["overall"]


def test_a_finished_run_is_not_run_again(whole, cache):
    before = (whole.path / "metrics.jsonl").read_bytes()
    run(whole.recipe, whole, cache=cache)
    assert (whole.path / "metrics.jsonl").read_bytes() == before


def test_a_run_directory_is_not_overwritten(whole):
    with pytest.raises(FileExistsError):
        RunDirectory.create(whole.path, whole.recipe)


def test_the_warm_start_is_trained_once_for_the_same_ingredients(whole, cache):
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1
    recipe = whole.recipe
    assert (cache / fingerprint(recipe)).is_dir()
    same = load_recipe("tiny", [*SMALL, "seed=5", "optimization.batches=9"])
    assert fingerprint(same) == fingerprint(recipe)
    for change in (
        "warm_start.seed=1",
        "model.tiny.layers=2",
        "data.hard_fraction=0.5",
        "data.train=builtin-chain",
    ):
        assert fingerprint(load_recipe("tiny", [*SMALL, change])) != fingerprint(recipe)


def test_a_warm_start_that_learns_nothing_is_an_error_and_leaves_nothing(tmp_path):
    changes = ["warm_start.target_accuracy=0.9", "warm_start.max_steps=4"]
    with pytest.raises(WarmStartFailed, match="sampled accuracy is 0.00 after 4 steps"):
        finished(tmp_path / "run", tmp_path / "cache", *changes)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_adapters_on_a_model_from_a_path_are_trained_in_bfloat16_and_merged(whole, cache, tmp_path):
    policy = cache / fingerprint(whole.recipe)
    (tmp_path / "recipe.toml").write_text(
        f"""
        name = "adapters"
        [model]
        path = "{policy}"
        precision = "bfloat16"
        gradient_checkpointing = true
        [model.lora]
        rank = 4
        """
    )
    changes = [c for c in SMALL if not c.startswith(("model.", "warm_start."))]
    changes += ["optimization.batches=2", "optimization.learning_rate=0.05"]
    recipe = load_recipe(str(tmp_path / "recipe.toml"), changes)
    directory = RunDirectory.create(tmp_path / "run", recipe)
    run(recipe, directory, cache=cache)
    # Bfloat16 rounds, but old and new log-probabilities alike.
    assert [m["on_policy/log_rho_max"] for m in lines(directory)] == [0.0, 0.0]
    before = AutoModelForCausalLM.from_pretrained(policy).state_dict()
    after = AutoModelForCausalLM.from_pretrained(directory.model).state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name].to(before[name]))}
    assert any("q_proj" in name for name in changed)
