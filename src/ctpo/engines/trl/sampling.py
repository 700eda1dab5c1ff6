"""What generation may be told: nothing that changes the distribution sampled from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctpo.engines.trl.model_calls import HARMLESS

if TYPE_CHECKING:
    from trl import GRPOConfig

# Where a response ends, what is returned of it and how it is computed.
_HARMLESS = HARMLESS | {
    "detokenize",
    "include_stop_str_in_output",
    "length_penalty",  # of beams, of which there is one
    "logprobs",
    "max_new_tokens",
    "max_tokens",
    "seed",
    "skip_special_tokens",
    "stop",
    "stop_strings",
    "stop_token_ids",
}

# The values of the other options, transformers' and vLLM's, that leave the distribution alone.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "top_p": (1.0,),
    "top_k": (0, -1, None),
    "min_p": (None, 0.0),
    "repetition_penalty": (1.0,),
    "do_sample": (True,),
    **dict.fromkeys(("num_beams", "num_return_sequences", "n"), (1, None)),
    **dict.fromkeys(("typical_p", "encoder_repetition_penalty", "guidance_scale"), (1.0, None)),
    **dict.fromkeys(
        (
            "encoder_no_repeat_ngram_size",
            "epsilon_cutoff",
            "eta_cutoff",
            "frequency_penalty",
            "min_length",
            "min_new_tokens",
            "min_tokens",
            "no_repeat_ngram_size",
            "presence_penalty",
        ),
        (0, None),
    ),
}


def refuse_other_sampling(config: GRPOConfig) -> None:
    """Raise if sampling would not follow softmax(logits / temperature).

    Args:
        config: TRL's settings; `generation_kwargs` are looked through too.

    Raises:
        ValueError: Names the option and the value that would be right.
    """
    plain = _PLAIN | {"temperature": (config.temperature,)}
    given = {
        name: getattr(config, name) for name in ("top_p", "top_k", "min_p", "repetition_penalty")
    }
    extra = config.generation_kwargs if isinstance(config.generation_kwargs, dict) else {}
    for name in extra:
        if name not in plain and name not in _HARMLESS:
            raise ValueError(
                f"generation_kwargs has {name!r}, which can change the distribution sampled "
                "from and is not supported"
            )
    for name, value in [*given.items(), *extra.items()]:
        if name in plain and value not in plain[name]:
            raise ValueError(
                f"{name} is {value!r}; it must be {plain[name][0]!r}. The sampler would draw from "
                "another distribution than the one whose log-probabilities are trained: every "
                "ratio is off by the mass cut off, to the power t in a product"
            )
