"""Saved batches of verl's become logs that say what was in them."""

import torch
from typer.testing import CliRunner
from verl import DataProto

from ctpo.cli.app import app
from ctpo.report import analyze


def test_a_saved_batch_becomes_a_log(tmp_path):
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(12, 9, generator=generator)
    names = ("old_log_probs", "rollout_log_probs", "response_mask", "responses")
    values = (old, old.bfloat16().float(), (old < -0.1).long(), torch.ones(12, 9).long())
    data = DataProto.from_single_dict(dict(zip(names, values, strict=True)))
    data.save_to_disk(tmp_path / "a.pkl")
    torch.save(data.batch, tmp_path / "b.pt")
    out = tmp_path / "log.parquet"
    files = [str(tmp_path / "a.pkl"), str(tmp_path / "b.pt")]
    done = CliRunner().invoke(app, ["verl", "log", *files, "--out", str(out)])
    assert done.exit_code == 0 and "24 responses" in done.output
    analysis = analyze(out)
    assert analysis.statistics is not None
    assert analysis.statistics.tokens.sum() == 2 * (old < -0.1).sum()
    assert analysis.cause is not None and analysis.cause.name == "rounding"


def test_a_batch_without_two_log_probs_is_refused(tmp_path):
    DataProto.from_single_dict({"old_log_probs": torch.zeros(2, 3)}).save_to_disk(tmp_path / "a")
    done = CliRunner().invoke(app, ["verl", "log", str(tmp_path / "a"), "--out", "log.parquet"])
    assert done.exit_code == 1
    assert "two of log_probs, old_log_probs and rollout_log_probs" in " ".join(done.output.split())
