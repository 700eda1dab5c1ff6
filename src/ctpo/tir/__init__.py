"""Tool-integrated episodes: prompt, generate, find the call, execute, append, stop."""

from ctpo.tir.calls import Call
from ctpo.tir.episode import EpisodeSettings, EpisodeTimes, SandboxFailure, run_episodes
from ctpo.tir.generation import Generator, Sampled, Session, StopReason, StopRule
from ctpo.tir.protocols import ToolProtocol
from ctpo.tir.tools import Tool, ToolError
from ctpo.tir.trajectory import ToolResult, Trajectory, Turn

__all__ = [
    "Call",
    "EpisodeSettings",
    "EpisodeTimes",
    "Generator",
    "Sampled",
    "SandboxFailure",
    "Session",
    "StopReason",
    "StopRule",
    "Tool",
    "ToolError",
    "ToolProtocol",
    "ToolResult",
    "Trajectory",
    "Turn",
    "run_episodes",
]
