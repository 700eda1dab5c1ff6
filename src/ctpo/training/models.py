"""Loading a model and its tokenizer by directory or Hub name, and keeping the libraries quiet."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import huggingface_hub.constants
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ctpo.training.recipe.model import Model


class ModelNotFound(ValueError):
    """There is no such model, or it cannot be read; the message names it."""


class HubOutOfReach(ModelNotFound):
    """It may be there: the Hub cannot be asked, and no copy of it is on this machine."""


def load_model(
    path: str | Path, dtype: torch.dtype | str = "auto", told: Model | None = None
) -> tuple[PreTrainedModel, Tokenizer]:
    """Load a causal language model, onto the GPU if there is one, and its tokenizer.

    Args:
        path: A directory or a Hub name.
        dtype: Of the weights; `auto` takes what they were saved in.
        told: What a recipe says of its tokenizer.

    Raises:
        ModelNotFound: There is no such model, or it has no chat template.
    """
    with _loading(path, "model"):
        AutoConfig.from_pretrained(path)  # without a network a wrong name fails soonest here
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), load_tokenizer(path, told)


def load_tokenizer(path: str | Path, told: Model | None = None) -> Tokenizer:
    """Load a model's tokenizer, or the one that a recipe names in its place.

    Raises:
        ModelNotFound: There is none, or it has no chat template.
    """
    path = (told and told.tokenizer) or path
    with _loading(path, "tokenizer"):
        if Path(path).is_dir() and not _holds(path, "tokenizer*", "vocab*", "*.model"):
            # transformers would make one without words, by the model's kind.
            raise OSError("there is none; model.tokenizer of a recipe names another place")
        tokenizer = AutoTokenizer.from_pretrained(path)
    if told and told.chat_template:
        tokenizer.chat_template = told.chat_template
    if tokenizer.chat_template is None:
        raise ModelNotFound(
            f"{path} has no chat template; episodes are chats, so take an instruction-tuned model, "
            "or give it a template: model.chat_template in a recipe (docs/model.md)"
        )
    return tokenizer


def check_model(told: Model) -> None:
    """Find out whether a recipe's model can be loaded, without its weights.

    Raises:
        HubOutOfReach: It cannot be told.
        ModelNotFound: It cannot; says what it lacks.
    """
    if told.path is None:
        return
    with _loading(told.path, "model"):
        config = AutoConfig.from_pretrained(told.path)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelNotFound(f"{told.path} is a {config.model_type}, which is no language model")
    if Path(told.path).is_dir() and not _holds(told.path, "*.safetensors", "*.bin"):
        raise ModelNotFound(f"{told.path} holds no weights: no *.safetensors and no *.bin")
    load_tokenizer(told.path, told)


def _holds(place: str | Path, *kinds: str) -> bool:
    return any(file for kind in kinds for file in Path(place).glob(kind))


@contextmanager
def _loading(path: str | Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        kind: type[ModelNotFound] = ModelNotFound
        files = (each for each in (Path(path), *Path(path).glob("*")) if os.path.exists(each))
        closed = next((each for each in files if not os.access(each, os.R_OK)), None)
        if closed:
            why = f"this user may not read {closed}"
        elif Path(path).is_dir():
            why = f"the directory holds no whole {what}: {error}"
        elif str(path).startswith(("/", ".", "~")) or str(path).count("/") > 1:
            why = "there is no such directory"
        else:
            why = f"it is no directory here, and as a Hub name it gave: {error}"
            if isinstance(error.__cause__ or error.__context__, LocalEntryNotFoundError):
                kind = HubOutOfReach
        raise kind(f"{path} cannot be loaded: {why}") from error


def frozen_in_bfloat16(model: Model) -> bool:
    """Return whether a recipe's weights are frozen and can be kept in bfloat16.

    Weights that are trained cannot: an update of 1e-6 is far below its rounding.
    """
    return model.lora is not None and model.precision == "bfloat16"


class Float32Head(nn.Linear):
    """An output layer that computes in float32, whatever comes in and whatever autocast says.

    Bfloat16 rounds a logit of 20 by up to 0.06, more than CTPO's window at its first position.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits, in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight)


def give_float32_head(model: PreTrainedModel) -> None:
    """Replace a frozen model's output layer by one in float32, untied from the embeddings.

    TRL's own cast fails on a tied model under adapters, which Qwen3-4B is.
    """
    old = model.get_output_embeddings()
    if old.bias is not None:
        raise ValueError("an output layer with a bias cannot be kept in float32 beside bfloat16")
    head = Float32Head(old.in_features, old.out_features, bias=False, device="meta")
    head.weight = nn.Parameter(old.weight.detach().float(), requires_grad=False)
    model.set_output_embeddings(head)
    model.config.tie_word_embeddings = False


def take_back_float32_head(model: PreTrainedModel, *, tied: bool) -> None:
    """Undo `give_float32_head`, so that the model is saved as it was loaded.

    Args:
        model: The model.
        tied: Whether its output layer was tied to its embeddings.
    """
    head = model.get_output_embeddings()
    plain = nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(head.weight.detach().to(model.dtype), requires_grad=False)
    model.set_output_embeddings(plain)
    model.config.tie_word_embeddings = tied
    model.tie_weights()


def quiet_libraries() -> None:
    """Silence progress bars and notes that are not about the run, and keep telemetry at home."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # It was read when the library was imported.
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # An answer nobody can grade is counted in our own metrics; TRL prints each in full.
    logging.getLogger("trl.trainer.grpo_trainer").setLevel(logging.ERROR)
    # Peft and TRL warn of things that the recipe has decided.
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
