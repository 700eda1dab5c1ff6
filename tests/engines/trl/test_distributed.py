"""Two processes that talk over gloo, as `torchrun` starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys, torch
sys.path.insert(0, sys.argv[1])
from datasets import Dataset
from ctpo.engines.trl import CTPOConfig, CTPOTrainer
from conftest import Digits, reward

torch.set_num_threads(1)
config = CTPOConfig(
    output_dir="out", per_device_train_batch_size=2, steps_per_generation=2, num_generations=4,
    max_completion_length=16, max_steps=2, logging_steps=2, learning_rate=1e-3, bf16=False,
    save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
)
prompts = [{"prompt": [{"role": "user", "content": f"Find {n}."}]} for n in range(4)]
trainer = CTPOTrainer(
    model="policy", args=config, reward_funcs=[reward],
    train_dataset=Dataset.from_list(prompts), rollout_func=Digits(),
)
own, merged, collect, log = [], {}, trainer._collect, trainer.log
def count(positions, entropies, mask):
    own.append(sum(positions.to_columns()["tokens"]))
    collect(positions, entropies, mask)
def keep(logs, *args):
    before = trainer.positions
    log(logs, *args)
    merged.update({k: v for k, v in logs.items() if k.startswith("ctpo/") or k == "entropy"})
trainer._collect, trainer.log = count, keep
seen = []
trainer.callback_handler.callbacks[0].on_log = lambda *a, **k: seen.append(
    sum(trainer.positions.to_columns()["tokens"]) if trainer.positions else None)
trainer.train()
weights = sum(p.double().sum().item() for p in trainer.model.parameters())
with open(f"rank-{os.environ['RANK']}.json", "w") as file:
    json.dump({"own": sum(own), "merged": seen[0], "logs": merged, "weights": weights}, file)
"""


@pytest.mark.slow
def test_statistics_of_two_processes_are_those_of_both(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    (tmp_path / "script.py").write_text(SCRIPT)
    here = Path(__file__).parent
    shown = subprocess.run(
        # --standalone: on a port that is free, not on torchrun's usual one.
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        + ["script.py", str(here)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    first, second = (json.loads((tmp_path / f"rank-{r}.json").read_text()) for r in (0, 1))
    assert first["own"] > 0
    assert second["own"] > 0
    assert first["merged"] == second["merged"] == first["own"] + second["own"]
    assert first["logs"] == second["logs"]
    assert first["weights"] == second["weights"]
    assert first["logs"]["ctpo/on_policy/log_rho_max"] == 0.0
