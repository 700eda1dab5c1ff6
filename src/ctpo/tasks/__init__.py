"""Problems: the built-in family, benchmarks, readers of data sets, and a writer for verl."""

from collections.abc import Callable

from ctpo.tasks.benchmark_loading import LoadedBenchmark, load_benchmark
from ctpo.tasks.benchmarks import BENCHMARKS, Benchmark
from ctpo.tasks.builtin import generate
from ctpo.tasks.chain import generate_chains
from ctpo.tasks.problem import Problem
from ctpo.tasks.readers import read_problems
from ctpo.tasks.templates import TEMPLATES, Template
from ctpo.tasks.writers import write_verl_parquet

BUILTIN: dict[str, Callable[..., list[Problem]]] = {
    "builtin": generate,
    "builtin-chain": generate_chains,
}
"""The families of problems that need no file: how each is drawn, by the name of the source."""

__all__ = [
    "BENCHMARKS",
    "BUILTIN",
    "TEMPLATES",
    "Benchmark",
    "LoadedBenchmark",
    "Problem",
    "Template",
    "generate",
    "generate_chains",
    "load_benchmark",
    "read_problems",
    "write_verl_parquet",
]
