"""What the agent loop and the tool may be told, read from verl's configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ctpo.tir import EpisodeSettings
from ctpo.tir.protocols import protocol

# Where verl keeps what is not its own: `actor_rollout_ref.rollout.custom.episodes`.
KEY = "episodes"


@dataclass(frozen=True)
class SandboxSettings:
    """How programs run; the arguments of `ctpo.sandbox.Sandbox` of the same names.

    Attributes:
        timeout: Seconds of a program's own time.
        memory_mb: MiB that a program may add to the interpreter's.
        preload: Modules imported once.
        workers: Programs at once on a node; None for two a processor.
        allow_weak: Whether to run where the machine offers limits alone.
    """

    timeout: float = 5.0
    memory_mb: int = 1024
    preload: tuple[str, ...] = ("numpy", "sympy")
    workers: int | None = None
    allow_weak: bool = False

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> SandboxSettings:
        """Read a mapping.

        Raises:
            ValueError: It has a key that means nothing here.
        """
        values = dict(_checked(given, cls, "sandbox"))
        if "preload" in values:
            values["preload"] = tuple(values["preload"] or ())
        return cls(**values)


@dataclass(frozen=True)
class LoopSettings:
    """What an episode of the agent loop may use.

    Attributes:
        protocol: `fence`, `hermes` or `plain`.
        instructions: System message for problems that have none; None for the protocol's own,
            "" for none at all.
        max_calls: Most programs in one episode.
        max_output_tokens: Most tokens of a program's output that are shown.
        max_output_chars: The same in characters. Give one of the two, None for the other.
        sandbox: How programs run.
    """

    protocol: str = "fence"
    instructions: str | None = None
    max_calls: int = 4
    max_output_tokens: int | None = 512
    max_output_chars: int | None = None
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)

    def __post_init__(self) -> None:
        if (self.max_output_tokens is None) == (self.max_output_chars is None):
            raise ValueError(
                f"max_output_tokens is {self.max_output_tokens} and max_output_chars is "
                f"{self.max_output_chars}; give one and make the other null"
            )
        self.episode(1)

    @classmethod
    def read(cls, *layers: Mapping[str, Any] | None) -> LoopSettings:
        """Read mappings, of which a later one wins.

        Raises:
            ValueError: A key means nothing here, or a value is impossible.
        """
        values: dict[str, Any] = {}
        for layer in layers:
            values |= _checked(layer or {}, cls, KEY)
            # A limit given in one unit replaces the default in the other.
            for one, other in (
                ("max_output_chars", "max_output_tokens"),
                ("max_output_tokens", "max_output_chars"),
            ):
                if layer and layer.get(one) is not None and other not in layer:
                    values[other] = None
        if "sandbox" in values:
            values["sandbox"] = SandboxSettings.read(values["sandbox"] or {})
        return cls(**values)

    def episode(
        self, max_response_tokens: int, chat_template_kwargs: Mapping[str, object] | None = None
    ) -> EpisodeSettings:
        """Return the same for `ctpo.tir`.

        Args:
            max_response_tokens: verl's `data.max_response_length`.
            chat_template_kwargs: verl's `data.apply_chat_template_kwargs`.
        """
        limits: dict[str, int] = {}
        if self.max_output_chars is not None:
            limits["max_output_chars"] = self.max_output_chars
        return EpisodeSettings(
            max_response_tokens=max_response_tokens,
            max_calls=self.max_calls,
            max_output_tokens=self.max_output_tokens,
            chat_template_kwargs=dict(chat_template_kwargs or {}),
            protocol=protocol(self.protocol),
            **limits,
        )

    @property
    def system_message(self) -> str:
        """The system message for problems that have none; "" for none."""
        if self.instructions is None:
            return protocol(self.protocol).instructions
        return self.instructions


def _checked(given: Mapping[str, Any], of: type, where: str) -> Mapping[str, Any]:
    known = [f.name for f in dataclasses.fields(of)]
    for name in given:
        if name not in known:
            raise ValueError(f"{where}.{name} means nothing; known are {', '.join(known)}")
    return given
