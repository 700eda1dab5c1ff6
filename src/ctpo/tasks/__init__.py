"""Problems: the built-in family, benchmarks, readers of data sets, and a writer for verl."""

from ctpo.tasks.benchmark_loading import LoadedBenchmark, load_benchmark
from ctpo.tasks.benchmarks import BENCHMARKS, Benchmark
from ctpo.tasks.builtin import generate
from ctpo.tasks.problem import Problem
from ctpo.tasks.readers import read_problems
from ctpo.tasks.templates import TEMPLATES, Template
from ctpo.tasks.writers import write_verl_parquet

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
    "write_verl_parquet",
]
