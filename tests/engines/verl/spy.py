"""Writes down what verl's actor trains on, for the tests that load this into its processes.

`CTPO_TEST_SPY` names the directory. Each mini-batch of each rank becomes one file, a list of rows
with prompt, response, mask, log-probabilities and advantages as plain lists.
"""

from __future__ import annotations

import functools
import itertools
import os
import pickle
from pathlib import Path
from typing import Any

from verl.workers import engine_workers

FIELDS = ("prompts", "responses", "response_mask", "rollout_log_probs", "old_log_probs")
OPTIONAL = ("advantages", "rollout_is_weights")

_original = engine_workers.TrainingWorker.train_batch
_counter = itertools.count()


@functools.wraps(_original)
def _train_batch(self: Any, data: Any) -> Any:
    columns = {
        name: [row.tolist() for row in data[name].unbind()]
        for name in (*FIELDS, *(name for name in OPTIONAL if name in data))
    }
    columns["extra_fields"] = [dict(row) for row in data["extra_fields"]]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    directory = Path(os.environ["CTPO_TEST_SPY"])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{os.getpid()}-{next(_counter):04d}.pickle").write_bytes(pickle.dumps(rows))
    return _original(self, data)


engine_workers.TrainingWorker.train_batch = _train_batch
