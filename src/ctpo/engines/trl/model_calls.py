"""How TRL's calls of the model are kept to what the loss takes them for."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

logger = logging.getLogger(__name__)

# Fields of a model's own generation configuration that leave the distribution alone. Of all others
# `generate` would take what TRL does not set: a new one is out until it is listed here.
HARMLESS = frozenset(
    {
        "_commit_hash",
        "_from_model_config",
        "bos_token_id",
        "cache_config",
        "cache_implementation",
        "compile_config",
        "continuous_batching_config",
        "decoder_start_token_id",
        "disable_compile",
        "eos_token_id",
        "low_memory",
        "pad_token_id",
        "prefill_chunk_size",
        "transformers_version",
        "use_cache",
    }
)


def dropped_fields(configuration: GenerationConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model's generation configuration sets, and sampling here has to leave out.

    Args:
        configuration: The model's own.
        given: What the trainer sets itself, by name.
    """
    # False and 0 switch something off.
    return {
        name: value
        for name, value in configuration.to_dict().items()
        if value not in (None, False) and name not in HARMLESS and name not in given
    }


def warn_of_dropped_fields(model: nn.Module, given: Mapping[str, Any]) -> None:
    """Say what of a model's generation configuration is left out.

    Args:
        model: The policy, unwrapped.
        given: What the trainer sets itself, by name.
    """
    own = getattr(model, "generation_config", None)
    for name, value in dropped_fields(own, given).items() if own is not None else ():
        logger.warning(
            "the model's generation_config has %s = %r, which is left out when sampling: "
            "log-probabilities are of the plain distribution",
            name,
            value,
        )


@contextmanager
def plain_sampling(model: nn.Module) -> Iterator[None]:
    """Have `generate` draw from softmax(logits / temperature), whatever the model's files say.

    A model can come with filters and penalties (`min_p`, `suppress_tokens`, `num_beams`, ...) in
    its `generation_config`. The sampler would then draw from another distribution than the one
    whose log-probabilities are trained.

    Args:
        model: The policy; wrappers and adapters included.
    """
    own = [
        (module, vars(module)["generation_config"])
        for module in model.modules()
        if isinstance(vars(module).get("generation_config"), GenerationConfig)
    ]
    for module, configuration in own:
        harmless = {k: v for k, v in configuration.to_dict().items() if k in HARMLESS}
        vars(module)["generation_config"] = GenerationConfig(**harmless)
    try:
        yield
    finally:
        for module, configuration in own:
            vars(module)["generation_config"] = configuration


@contextmanager
def positions_of_tokens(model: nn.Module, unwrapped: nn.Module) -> Iterator[None]:
    """Give the model the position of each token, which padding on the left does not move.

    Models with learned positions count columns if nobody tells them otherwise. Those with images
    have a rule of their own for positions and are left alone.

    Args:
        model: What is called.
        unwrapped: The same without what trainers wrap around it.
    """
    base: Any = unwrapped.get_base_model() if isinstance(unwrapped, PeftModel) else unwrapped
    if (
        not isinstance(base, PreTrainedModel)
        or base.config.get_text_config() is not base.config
        or "position_ids" not in inspect.signature(type(base).forward).parameters
    ):
        yield
        return

    def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        mask = kwargs.get("attention_mask")
        if isinstance(mask, Tensor):
            kwargs = kwargs | {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
        return args, kwargs

    handle = model.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
