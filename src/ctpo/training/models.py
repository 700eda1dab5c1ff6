"""Loading a model and its tokenizer by directory or Hub name."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer


class ModelNotFound(ValueError):
    """There is no such model, or it cannot be read; the message names it."""


def load_model(
    path: str | Path, dtype: torch.dtype | str = "auto"
) -> tuple[PreTrainedModel, Tokenizer]:
    """Load a causal language model and its tokenizer.

    Args:
        path: A directory or a Hub name.
        dtype: Of the weights; `auto` takes what they were saved in.

    Raises:
        ModelNotFound: There is no such model, or it has no chat template.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except OSError as error:
        where = "a directory without a model" if Path(path).is_dir() else "no directory here"
        raise ModelNotFound(
            f"{path} cannot be loaded: it is {where}, and as a Hub name it gave: {error}"
        ) from error
    if tokenizer.chat_template is None:
        raise ModelNotFound(
            f"{path} has no chat template; episodes are chats, so take an instruction-tuned model"
        )
    return model, tokenizer
