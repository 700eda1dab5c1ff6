"""Shared by all rooms: no network, one thread, and a model small enough for every test."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sandbox():
    from ctpo.sandbox import Sandbox

    with Sandbox(workers=2, timeout=3.0) as started:
        yield started


@pytest.fixture(scope="session")
def tokenizer():
    from ctpo.tasks import generate
    from ctpo.training import teacher, tiny

    transcripts = teacher.demonstrations(generate(700, seed=0), seed=0)
    texts = [t.messages[-1]["content"] + "\n" + t.text for t in transcripts]
    return tiny.build_tokenizer(texts, 384)


@pytest.fixture
def model(tokenizer):
    """An untrained model: its text is noise, its log-probabilities are as good as any."""
    from ctpo.training import tiny
    from ctpo.training.recipe import TinyModel

    settings = TinyModel(
        hidden_size=32, layers=2, heads=2, key_value_heads=1, head_size=16, intermediate_size=32
    )
    return tiny.build_model(settings, tokenizer, seed=0).eval()
