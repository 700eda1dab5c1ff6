"""Messages as a model's chat template writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    options: Mapping[str, Any] | None = None,
) -> str:
    """Return the prompt that messages make, as text, up to where the policy goes on.

    Args:
        tokenizer: With a chat template.
        messages: Each with `role` and `content`.
        options: What the template is given besides, such as `enable_thinking`.

    Raises:
        ValueError: The template refuses the messages; says what to leave out where that is the
            system message.
    """
    # Whoever has a chat template has jinja2; who asks a server for a chat may not.
    from jinja2.exceptions import TemplateError

    def rendered(some: Sequence[Mapping[str, str]]) -> str:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in some],
            tokenize=False,
            add_generation_prompt=True,
            **(options or {}),
        )
        assert isinstance(text, str)
        return text

    try:
        return rendered(messages)
    except TemplateError as error:
        without = [message for message in messages if message["role"] != "system"]
        if len(without) < len(messages):
            try:
                rendered(without)
            except TemplateError:
                pass  # then it is not for the system message that they are refused
            else:
                raise ValueError(
                    f"the model's chat template takes no system message ({error}); leave the "
                    "instructions out (data.instructions of a recipe, --no-instructions of ctpo "
                    "eval), or write them into the problems' own user messages"
                ) from error
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(
            f"the model's chat template refuses messages with the roles {roles}: {error}"
        ) from error
