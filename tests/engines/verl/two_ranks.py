"""One of two ranks: trains with verl's worker, and writes down what the worker said."""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from ctpo.engines.verl import recording
from ctpo.engines.verl.loss_config import CTPOPolicyLossConfig
from tests.engines.verl.batches import random_rows, train
from tests.engines.verl.cpu.worker import training_worker


def data_parallel(rank: int, meeting: Path, model: Path, directory: Path) -> None:
    """Each rank has half of the rows."""
    rows = random_rows(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32))[rank::2]
    split = {"mini_batch_size": 6, "micro_batch_size": 1}
    _train(rank, meeting, model, directory, {}, rows, split)


def sequence_parallel(rank: int, meeting: Path, model: Path, directory: Path) -> None:
    """Both ranks have all rows, and half of each sequence's tokens."""
    rows = random_rows(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32))
    split = {"mini_batch_size": 3, "micro_batch_size": 3}
    actor = {"ulysses_sequence_parallel_size": 2}
    _train(rank, meeting, model, directory, actor, rows, split)


def _train(rank, meeting, model, directory, actor, rows, split) -> None:
    directory.mkdir(exist_ok=True)
    config = CTPOPolicyLossConfig(loss_mode="ctpo", positions=str(directory / "positions.parquet"))
    recording.step_files = recording.StepFiles()
    recording.step_files.weights_are_of(0)
    actor = {"optim.lr": 0.0, **actor}
    with training_worker(model, actor, rank=rank, ranks=2, meeting=meeting) as worker:
        found = train(worker, rows, config, **split)
    numbers = found and {name: float(value) for name, value in found.items()}
    (directory / f"rank-{rank}.json").write_text(json.dumps(numbers))


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, model, directory = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    for kind in (data_parallel, sequence_parallel):
        kind(rank, directory / f"{kind.__name__}.meeting", model, directory / kind.__name__)
