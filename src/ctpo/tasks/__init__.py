"""Problems: the built-in family, benchmarks, and readers of Parquet, JSONL and Hub data sets."""

from ctpo.tasks.benchmark_loading import LoadedBenchmark, load_benchmark
from ctpo.tasks.benchmarks import BENCHMARKS, Benchmark
from ctpo.tasks.builtin import generate
from ctpo.tasks.problem import Problem
from ctpo.tasks.readers import read_problems
from ctpo.tasks.templates import TEMPLATES, Template

__all__ = [
    "BENCHMARKS",
    "TEMPLATES",
    "Benchmark",
    "LoadedBenchmark",
    "Problem",
    "Template",
    "generate",
    "load_benchmark",
    "read_problems",
]
