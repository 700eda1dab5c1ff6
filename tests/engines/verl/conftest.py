"""What the tests on verl share: a model of some twenty thousand parameters."""

from pathlib import Path

import pytest

from ctpo.training.recipe.recipe import TinyModel
from ctpo.training.tiny.model import build_model, build_tokenizer

TINY = TinyModel(
    hidden_size=32,
    layers=2,
    heads=2,
    key_value_heads=1,
    head_size=16,
    intermediate_size=64,
    vocabulary=192,
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an untrained Qwen3 and its tokenizer."""
    directory = tmp_path_factory.mktemp("tiny")
    texts = ["Compute 12 + 34.\n```python\nprint(12 + 34)\n```\n```output\n46\n```\n\\boxed{46}"]
    tokenizer = build_tokenizer(texts, TINY.vocabulary)
    build_model(TINY, tokenizer, seed=0).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
