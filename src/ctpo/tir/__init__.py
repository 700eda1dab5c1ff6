"""Tool-integrated episodes: prompt, generate, find the call, execute, append, stop."""

from ctpo.tir.episode import EpisodeSettings, EpisodeTimes, SandboxFailure, run_episodes
from ctpo.tir.generation import Generator, Sampled, Session, StopReason, StopRule
from ctpo.tir.trajectory import ToolResult, Trajectory, Turn

__all__ = [
    "EpisodeSettings",
    "EpisodeTimes",
    "Generator",
    "Sampled",
    "SandboxFailure",
    "Session",
    "StopReason",
    "StopRule",
    "ToolResult",
    "Trajectory",
    "Turn",
    "run_episodes",
]
