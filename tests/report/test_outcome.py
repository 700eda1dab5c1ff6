"""Whether a run worked is said in words that its numbers carry."""

import json
import shutil

import numpy as np
import pytest

from ctpo.disk import locked
from ctpo.report import read_run
from ctpo.report.outcome import change, verdict
from ctpo.report.overlay import comparison, differing
from ctpo.report.words import facts


def rewrite(run, name, mean, **sampled):
    file = run / "evaluations" / f"{name}.json"
    content = json.loads(file.read_text())
    content["sampled"]["overall"]["mean"] = mean
    content["sampled"] |= sampled
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (0.8, "It worked: held-out accuracy went from 20.0 % to 80.0 %"),
        (0.22, "Whether it helped cannot be told from so few problems"),
        (0.1, "It got worse"),
    ],
)
def test_the_verdict_goes_by_the_interval(run_dir, after, said):
    rewrite(run_dir, "final", after)
    assert verdict(read_run(run_dir)).startswith(said)


def test_of_a_run_that_is_not_done_the_verdict_says_so(run_dir):
    (run_dir / "evaluations" / "final.json").unlink()
    stopped = read_run(run_dir)
    assert stopped.state == "stopped"
    assert verdict(stopped).startswith("Stopped at batch 12, before its final evaluation. So far")
    (run_dir / ".lock").touch()
    with locked(run_dir), (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"batch": 13, "rew')  # being written
        file.flush()
        running = read_run(run_dir)
    assert (running.state, running.batch) == ("running", 12)
    assert verdict(running).startswith("Still running, at batch 12. So far it works: ")
    (run_dir / "evaluations" / "batch-0006.json").unlink()
    (run_dir / "metrics.jsonl").write_text("")
    assert "evaluated only at the start" in verdict(read_run(run_dir))


def test_a_failed_check_is_in_the_verdict(run_dir):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"batch": 13, "on_policy/log_rho_max": 0.2}\n')
    assert verdict(read_run(run_dir)).endswith("checks that failed: on-policy log-ratio.")


def test_the_same_problems_are_paired(run_dir):
    random = np.random.default_rng(0)
    hard = random.uniform(size=100)  # what makes a problem hard makes it so for both
    after = hard + random.normal(0.03, 0.02, size=100)
    for name, scores in (("start", hard), ("final", after)):
        by_problem = {f"p{i}": float(score) for i, score in enumerate(scores)}
        rewrite(run_dir, name, float(scores.mean()), by_problem=by_problem)
    run = read_run(run_dir)
    found = change(run.evaluations["start"], run.evaluations["final"])
    assert found is not None and found.paired and found.direction == "up"
    half = 1.96 * (after - hard).std(ddof=1) / 10
    expected = [float((after - hard).mean() + side * half) for side in (-1, 0, 1)]
    np.testing.assert_allclose([found.low, found.value, found.high], expected, atol=5e-4)


def test_what_two_runs_differ_in_comes_key_by_key(run_dir, tmp_path):
    other = shutil.copytree(run_dir, tmp_path / "other")
    recipe = (other / "recipe.toml").read_text().replace('"ctpo"', '"grpo"\neps_low = 0.2')
    (other / "recipe.toml").write_text(recipe)
    rewrite(other, "final", 0.5)
    runs = [read_run(run_dir), read_run(other)]
    assert differing(runs) == [
        ("objective.preset", ["ctpo", "grpo"]),
        ("objective.eps_low", ["–", "0.2"]),
    ]
    lines = comparison(*runs)
    assert lines[0] == "objective.preset: ctpo → grpo"
    assert "second less first: -30.0 points (95 % interval -36.9 to -23.1)" in lines[-1]


def test_the_speed_is_that_of_the_tokens_written_while_training(run_dir):
    sizes = "prompts_per_batch = 3\nresponses_per_prompt = 4\n"
    (run_dir / "recipe.toml").write_text(f"[rollout]\n{sizes}")
    # Lengths of 59 to 48 in twelve batches of twelve answers, 210 s of updates.
    assert dict(facts(read_run(run_dir)))["speed"] == "tokens a second: 37 trained on"
