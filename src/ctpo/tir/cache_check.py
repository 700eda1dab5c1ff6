"""Whether a model says with a cache of keys and values what it says without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ctpo.tir.transformers_generator import TransformersGenerator

ANY = ""
"""The trigger of a rule that is asked after every token."""

# Nats between a cached and a plain pass: what rounding does in float32, and in half precision.
_EXACT, _ROUGH = 1e-3, 0.5


class UnsupportedModel(ValueError):
    """The generator cannot serve this model; the message names it and says why."""


class _AfterTwoTokens:
    """Ends the turns of two rows after two tokens each."""

    trigger = ANY

    def __init__(self) -> None:
        self._asked = 0

    def __call__(self, text: str) -> bool:
        self._asked += 1
        return self._asked > 2


def refuse_what_needs_another_cache(generator: TransformersGenerator) -> None:
    """Compare two rows of different length, two turns each, with plain forward passes.

    Raises:
        UnsupportedModel: They differ, or the model cannot be run in this way at all.
    """
    model, name = generator.model, type(generator.model).__name__
    contexts = [[3, 5, 7, 4, 6], [4, 8]]
    turns: list[list[list[int]]] = [[[], []], [[5], [6, 3, 9]]]
    training, eos, generator.eos_token_ids = model.training, generator.eos_token_ids, []
    worst = 0.0
    try:
        session = generator.open(contexts, temperature=0.0, seed=0)
        model.eval()
        for append in turns:
            results = session.generate((0, 1), append, (9, 9), _AfterTwoTokens())
            for context, more, sampled in zip(contexts, append, results, strict=True):
                context += more + sampled.ids
                with torch.no_grad(), generator.precision():
                    logits = model(input_ids=torch.tensor([context], device=model.device)).logits
                plain = logits[0, -3:-1].float().log_softmax(-1)
                for line, token, logprob in zip(plain, sampled.ids, sampled.logprobs, strict=True):
                    worst = max(worst, abs(float(line[token]) - logprob))
        exact = logits.dtype == torch.float32
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise UnsupportedModel(
            f"the model is a {name}, which cannot be run on keys and values of each token alone "
            f"({error}); state-space, convolution and linear-attention layers need another "
            "generator, such as vLLM"
        ) from error
    finally:
        generator.eos_token_ids = eos
        model.train(training)
    if not worst <= (_EXACT if exact else _ROUGH):
        raise UnsupportedModel(
            f"the model is a {name}, whose log-probabilities differ by {worst:.2g} nats with and "
            "without a cache: every ratio would be off by that; another generator, such as vLLM, "
            "may serve it"
        )
