"""What the callback writes is what the loss compared, on TRL's own trainer and on ours."""

import pytest
from trl import GRPOConfig, GRPOTrainer

from ctpo.engines.trl import CTPOConfig, CTPOTrainer, RatioLog
from ctpo.report import analyze


@pytest.mark.parametrize(
    ("trainer", "config"), [(GRPOTrainer, GRPOConfig), (CTPOTrainer, CTPOConfig)]
)
def test_a_log_holds_what_the_losses_compared(make_trainer, trainer, config, tmp_path):
    made = make_trainer(trainer=trainer, config=config, max_steps=4)
    seen = []
    compute = made._compute_loss

    def spy(model, inputs):
        seen.append(inputs)
        return compute(model, inputs)

    made._compute_loss = spy
    made.add_callback(RatioLog(made, tmp_path / "ratios", every=1))
    made.train()
    analysis = analyze(tmp_path / "ratios")
    tokens = sum(int((b["completion_mask"] * b["tool_mask"]).sum()) for b in seen)
    assert analysis.statistics is not None
    assert analysis.statistics.tokens.sum() == tokens > 0
    assert len(list((tmp_path / "ratios").iterdir())) == 4
    moved = analysis.statistics.summary()["log_ratio/std"]
    assert 0 < moved < 1, "updates move the policy, and old log-probs are of the same tokens"


def test_log_steps_must_be_at_least_one(make_trainer, tmp_path):
    with pytest.raises(ValueError, match="every is 0; it must be at least 1"):
        RatioLog(make_trainer(), tmp_path, every=0)
