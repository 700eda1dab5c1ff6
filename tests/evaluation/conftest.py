"""A model that has learned a few conversations by heart, and a real server that serves it."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from ctpo.tir.protocols import FENCE
from ctpo.training.recipe.recipe import TinyModel
from ctpo.training.tiny.model import build_model
from tests.evaluation.lessons import LESSONS
from tests.waiting import eventually


@pytest.fixture(scope="session")
def parrot(tokenizer, tmp_path_factory):
    """The directory of a model that calls the tool and then answers, under both APIs."""
    texts = []
    for question, code, output, said, _ in LESSONS:
        chat = [
            {"role": "system", "content": FENCE.instructions},
            {"role": "user", "content": question},
        ]
        call, box = f"I compute.\n```python\n{code}\n```", f"So \\boxed{{{said}}}"
        shown = f"```output\n{output}\n```"
        answered = [
            {"role": "assistant", "content": call},
            {"role": "user", "content": shown},
            {"role": "assistant", "content": box},
        ]
        inline = [{"role": "assistant", "content": f"{call}\n{shown}\n{box}"}]
        for turns in (answered, inline):
            texts.append(tokenizer.apply_chat_template([*chat, *turns], tokenize=False))
    settings = TinyModel(
        hidden_size=64, layers=2, heads=2, key_value_heads=1, head_size=32, intermediate_size=128
    )
    model = build_model(settings, tokenizer, seed=0)
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    start = len(tokenizer(FENCE.instructions)["input_ids"])
    labels[:, :start] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0)
    for _ in range(150):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.generation_config = GenerationConfig(
        do_sample=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_length=None,
        max_new_tokens=1024,
    )
    directory = tmp_path_factory.mktemp("parrot") / "model"
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


class ServerProcess:
    """A server on uvicorn in a process of its own, on a port that the system chooses."""

    def __init__(self, command, log):
        self.command = [*command, "--host", "127.0.0.1", "--port", "0"]
        self.log = Path(log)

    def start(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        with self.log.open("wb") as log:
            process = subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)

        def listening():
            assert process.poll() is None, self.log.read_text()[-3000:]
            return re.search(r"Uvicorn running on (http://[\d.:]+)", self.log.read_text())

        self.process, self.url = process, eventually(listening, what="a server that listens")[1]
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()


def transformers_serve(model, tmp_path):
    for needed in ("fastapi", "uvicorn", "openai", "requests"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"`transformers serve` needs {needed}: pip install 'transformers[serving]'")
    command = [Path(sys.executable).parent / "transformers", "serve", str(model)]
    return ServerProcess([*command, "--device", "cpu"], tmp_path / "log")


@pytest.fixture(scope="session")
def served(parrot, tmp_path_factory):
    server = transformers_serve(parrot, tmp_path_factory.mktemp("server")).start()
    yield server
    server.kill()
