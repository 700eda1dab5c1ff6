"""Figures, tables and the self-contained page of a run, drawn from its directory alone."""

from __future__ import annotations

from ctpo.report.analysis import Analysis, analyze
from ctpo.report.gallery import save_figures
from ctpo.report.overlay import write_overlay
from ctpo.report.page import write_report
from ctpo.report.position_files import PositionAnalysis, analyze_positions, holds_positions
from ctpo.report.reading import ReportError, Run, Score, read_run
from ctpo.report.tables import BeforeAfter, Phase, before_after, phases

__all__ = [
    "Analysis",
    "BeforeAfter",
    "Phase",
    "PositionAnalysis",
    "ReportError",
    "Run",
    "Score",
    "analyze",
    "analyze_positions",
    "before_after",
    "holds_positions",
    "phases",
    "read_run",
    "save_figures",
    "write_overlay",
    "write_report",
]
