"""What an episode may use."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctpo.tir.protocols import FENCE, ToolProtocol

Message = dict[str, str]


@dataclass(frozen=True)
class EpisodeSettings:
    """What an episode may use.

    Attributes:
        max_response_tokens: Most tokens behind the prompt, the tool's included.
        max_calls: Most programs run in one episode. The call that goes beyond ends it.
        max_output_chars: Most characters of a program's output shown to the policy.
        chat_template_kwargs: Passed on to the tokenizer's chat template, e.g.
            `{"enable_thinking": False}`.
        protocol: How the policy calls the tool and is answered.
        max_failure_share: Share of the programs of one `run_episodes` that the sandbox itself may
            fail to run.
        max_output_tokens: If given, the limit on a program's output in tokens of the policy's
            tokenizer, in place of `max_output_chars`.
    """

    max_response_tokens: int
    max_calls: int
    max_output_chars: int = 512
    chat_template_kwargs: dict[str, object] = field(default_factory=dict)
    protocol: ToolProtocol = FENCE
    max_failure_share: float = 0.02
    max_output_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.max_response_tokens < 1:
            raise ValueError(
                f"max_response_tokens is {self.max_response_tokens}; at least 1 is needed"
            )
        if self.max_calls < 0:
            raise ValueError(f"max_calls is {self.max_calls}; 0 or more is right")
        if self.max_output_chars < 2:
            raise ValueError(f"max_output_chars is {self.max_output_chars}; at least 2 are needed")
        if self.max_output_tokens is not None and self.max_output_tokens < 2:
            raise ValueError(
                f"max_output_tokens is {self.max_output_tokens}; at least 2 are needed"
            )
