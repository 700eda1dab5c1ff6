"""Figures, tables and the self-contained page of a run, drawn from its directory alone."""

from __future__ import annotations

from ctpo.report.analysis import Analysis, analyze
from ctpo.report.gallery import save_figures
from ctpo.report.page import write_report
from ctpo.report.reading import ReportError, Run, Score, read_run
from ctpo.report.tables import HEADINGS, BeforeAfter, Phase, before_after, phases

__all__ = [
    "HEADINGS",
    "Analysis",
    "BeforeAfter",
    "Phase",
    "ReportError",
    "Run",
    "Score",
    "analyze",
    "before_after",
    "phases",
    "read_run",
    "save_figures",
    "write_report",
]
