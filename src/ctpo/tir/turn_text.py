"""The text of a policy's turn, from its token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctpo.tir.calls import TOOL_CLOSE, TOOL_OPEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Which some tokenizers hold as special tokens.
_TAGS = (TOOL_OPEN, TOOL_CLOSE)


def turn_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Decode a turn, without special tokens but for those that mark a call."""
    added = tokenizer.added_tokens_decoder
    special = {i for i, token in added.items() if token.special}
    if not any(added[i].content in _TAGS for i in special):
        return tokenizer.decode(ids, skip_special_tokens=True)
    hidden = {i for i in special if added[i].content not in _TAGS}
    return tokenizer.decode([i for i in ids if i not in hidden], skip_special_tokens=False)
