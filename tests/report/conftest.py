"""A run directory with known numbers."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BATCHES = range(1, 13)
# Exact to 64, then eight bins an octave, as the objective's statistics have it.
BINS = [(t, t) for t in range(1, 65)] + [(65 + 8 * i, 72 + 8 * i) for i in range(8)]
NASTY = "<script>alert('x')</script> & \"quotes\""


def make_position_rows(batches=BATCHES, sigma=0.037, power=0.5, drift=-0.0004, tokens=20_000):
    """Bins with exactly this spread, this drift and clip rates of 3, 5 and 1 %."""
    rows = []
    for batch in batches:
        for low, high in BINS:
            middle = (low + high) / 2
            mean, variance = drift * middle, (sigma * middle**power) ** 2
            rows.append(
                {
                    "batch": batch,
                    "position_low": low,
                    "position_high": high,
                    "tokens": tokens,
                    "log_rho_sum": tokens * mean,
                    "log_rho_sumsq": tokens * (variance + mean**2),
                    "clipped_high": tokens * 0.03,
                    "clipped_low": tokens * 0.05,
                    "clipped_dual": tokens * 0.01,
                }
            )
    return rows


def score(mean, problems):
    return {
        "mean": mean,
        "low": mean - 0.05,
        "high": mean + 0.05,
        "sampling_error": 0.02,
        "clustered_error": 0.025,
        "problems": problems,
        "answers": 4 * problems,
        "unknown": 3,
    }


def evaluation(batch, mean):
    by_source = {"gcd": score(mean + 0.1, 50), "digit_sum": score(mean - 0.1, 50)}
    sampled = {
        "samples_per_problem": 4,
        "overall": score(mean, 100),
        "by_source": by_source,
    }
    greedy = {**sampled, "samples_per_problem": 1, "overall": score(mean + 0.02, 100)}
    return {"batch": batch, "sampled": sampled, "greedy": greedy}


def metrics(batch):
    return {
        "batch": batch,
        "step": 16 * batch,
        "reward/mean": 0.2 + 0.05 * batch,
        "reward/unknown": 0.02 if batch == 5 else 0.0,
        "response/length": 60 - batch,
        "entropy": None if batch == 3 else 0.9 * 0.97**batch,
        "grad_norm": 0.4,
    }


def trajectory(batch, reward):
    turns: list[dict[str, Any]] = [
        {"role": "assistant", "start": 0, "end": 3, "text": f"print(1 < 2) {NASTY}\n"},
        {"role": "tool", "start": 3, "end": 5, "text": "<b>True</b>\n"},
    ]
    return {
        "batch": batch,
        "problem_id": f"gcd/{batch}",
        "reward": reward,
        "advantage": None if reward is None else reward - 0.5,
        "finish_reason": "answered",
        "text": "".join(turn["text"] for turn in turns),
        "turns": turns,
        "response_ids": [1, 2, 3, 4, 5],
    }


def write_rows(table, rows):
    """Writes a directory of one file per batch, as runs do."""
    shutil.rmtree(table, ignore_errors=True)
    table.mkdir()
    for batch in {row["batch"] for row in rows}:
        part = [row for row in rows if row["batch"] == batch]
        pq.write_table(pa.Table.from_pylist(part), table / f"batch-{batch:04d}.parquet")


def make_run(path: Path) -> Path:
    (path / "evaluations").mkdir(parents=True)
    (path / "recipe.toml").write_text('name = "tiny"\n[objective]\npreset = "ctpo"\n')
    lines = [json.dumps(metrics(batch)) for batch in BATCHES]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    environment = {"python": "3.11.7", "packages": {"torch": "2.13.0"}, "cores": 2}
    (path / "environment.json").write_text(json.dumps(environment))
    timing = {"phases": {"rollouts": 30.0, "updates": 210.0, "tools": 60.0}}
    (path / "timing.json").write_text(json.dumps(timing))
    for name, batch, mean in (("start", 0, 0.2), ("batch-0006", 6, 0.5), ("final", 12, 0.8)):
        content = json.dumps(evaluation(batch, mean))
        (path / "evaluations" / f"{name}.json").write_text(content)
    write_rows(path / "positions.parquet", make_position_rows())
    rows = [trajectory(batch, reward) for batch in (1, 6, 12) for reward in (0.0, None, 1.0)]
    write_rows(path / "trajectories.parquet", rows)
    return path


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path / "tiny-1")


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """A run for tests that change nothing in it."""
    return make_run(tmp_path_factory.mktemp("runs") / "tiny-1")


@pytest.fixture
def position_rows():
    return make_position_rows


@pytest.fixture
def rewrite_positions(run_dir):
    """Replaces the run's statistics by position, or adds to them."""
    file = run_dir / "positions.parquet"

    def rewrite(*, append=False, **numbers):
        before = pq.read_table(file).to_pylist() if append else []
        write_rows(file, before + make_position_rows(**numbers))

    return rewrite


@pytest.fixture
def write_table(run_dir):
    """Replaces a table of the run."""

    def write(name, rows):
        write_rows(run_dir / name, rows)

    return write


def transcript(batch, reward, log_ratios):
    """Two tokens of the policy, one of the tool, one of the policy."""
    return {
        "batch": batch,
        "problem_id": f"gcd/{batch}",
        "question": f"What is <b>it</b>? {NASTY}",
        "reward": reward,
        "advantage": -0.0,
        "finish_reason": "answered",
        "updates": 7,
        "tokens": ["print(1 < 2)", f" {NASTY}\n", "<b>True</b>\n", "so"],
        "mask": [True, True, False, True],
        "log_ratios": log_ratios,
        "clipped": [False, False, False, True],
    }


@pytest.fixture(scope="session")
def coloured_run(whole_run, tmp_path_factory):
    """A run that recorded what the loss made of tokens, and by which problem it was right."""
    path = tmp_path_factory.mktemp("runs") / "tiny-2"
    shutil.copytree(whole_run, path)
    write_rows(
        path / "transcripts.parquet",
        [transcript(batch, 1.0, [0.0, -0.05, 0.0, 1.2]) for batch in (6, 12)],
    )
    changes = {"from": "tiny", "changes": {"seed": [0, 1], "model.path": [None, "here"]}}
    (path / "changes.json").write_text(json.dumps(changes))
    return path


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    for name in BROWSERS:
        if path := shutil.which(name):
            break
    else:
        pytest.skip(f"none of the browsers {', '.join(BROWSERS)} is installed")
    profile = tmp_path_factory.mktemp("profile")

    def look(page, address="", *options):
        command = [path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--no-first-run", f"--user-data-dir={profile}", "--virtual-time-budget=5000"]
        shown = subprocess.run(
            [*command, *options, "--dump-dom", f"file://{page}{address}"],
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert shown.returncode == 0, shown.stderr
        assert "Uncaught" not in shown.stderr
        return shown.stdout

    try:
        look("/dev/null")
    except (AssertionError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{path} does not run here: {str(error)[:200]}")
    return look
