"""Problems: the built-in family, and readers of Parquet, JSONL and Hub data sets."""

from ctpo.tasks.builtin import generate
from ctpo.tasks.problem import Problem
from ctpo.tasks.readers import read_problems
from ctpo.tasks.templates import TEMPLATES, Template

__all__ = ["TEMPLATES", "Problem", "Template", "generate", "read_problems"]
