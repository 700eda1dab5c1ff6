"""Stops verl's actor at a moment of its training, so that a test can kill everything just there.

`CTPO_TEST_PAUSE` is `update N`, before the N-th update of this start, or `save N`, when of the
checkpoint of step N the optimizer's file is half written. `CTPO_TEST_PAUSED` names a file that is
there from then on.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from pathlib import Path
from typing import Any

import torch
from verl.workers import engine_workers

KIND, NUMBER = os.environ["CTPO_TEST_PAUSE"].split()

_train_batch = engine_workers.TrainingWorker.train_batch
_save = torch.save
_updates = itertools.count(1)


def _pause() -> None:
    Path(os.environ["CTPO_TEST_PAUSED"]).touch()
    while True:
        time.sleep(1)


@functools.wraps(_train_batch)
def _train_batch_or_pause(self: Any, data: Any) -> Any:
    if next(_updates) == int(NUMBER):
        _pause()
    return _train_batch(self, data)


@functools.wraps(_save)
def _save_half(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
    _save(obj, f, *args, **kwargs)
    if f"/global_step_{NUMBER}/actor/optim" in str(f):
        os.truncate(f, os.stat(f).st_size // 2)
        _pause()


if KIND == "update":
    engine_workers.TrainingWorker.train_batch = _train_batch_or_pause
else:
    torch.save = _save_half
