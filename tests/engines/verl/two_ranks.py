"""One of two ranks: trains with verl's worker, and hands back what the worker said."""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from ctpo.engines.verl import recording
from ctpo.engines.verl.loss_config import CTPOPolicyLossConfig
from tests.engines.verl.batches import random_rows, train
from tests.engines.verl.cpu.worker import training_worker


def main(rank: int, port: int, model_path: Path, directory: Path, *, sequence_parallel: bool) -> None:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    rows = random_rows(model)
    actor: dict[str, object] = {"optim.lr": 0.0}
    if sequence_parallel:  # both ranks have the same rows, and half of each sequence's tokens
        actor["ulysses_sequence_parallel_size"] = 2
    else:
        rows = rows[rank::2]
    config = CTPOPolicyLossConfig(loss_mode="ctpo", positions=str(directory / "positions.parquet"))
    with training_worker(model_path, actor, rank=rank, ranks=2, port=port) as worker:
        for step in (1, 2):
            recording.step_files.weights_are_of(step - 1)
            found = train(
                worker, rows, config, mini_batch_size=len(random_rows(model)), micro_batch_size=1
            )
    numbers = found and {name: float(value) for name, value in found.items()}
    (directory / f"rank-{rank}.json").write_text(json.dumps(numbers))


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        int(sys.argv[2]),
        Path(sys.argv[3]),
        Path(sys.argv[4]),
        sequence_parallel=sys.argv[5] == "sequence-parallel",
    )
