"""The configuration of a release: frozen dataclasses, checked once, every fault reported together.

The YAML file mirrors the classes: top level ``ReleaseConfig``, one section for each of its parts; an empty section is as
good as none. What a profile sets stands in ``PROFILES``; the file overrides the profile, the command line the file.
"""

from beear_core.config.reading import PROFILES, faults_of, load, merge, parse, parse_json, read_yaml
from beear_core.config.schema import (
    CODE_TOKENS,
    Count,
    DataConfig,
    EvaluationConfig,
    JudgeName,
    MitigationConfig,
    Positive,
    Rate,
    RegistryConfig,
    ReleaseConfig,
)

__all__ = [
    "CODE_TOKENS",
    "PROFILES",
    "Count",
    "DataConfig",
    "EvaluationConfig",
    "JudgeName",
    "MitigationConfig",
    "Positive",
    "Rate",
    "RegistryConfig",
    "ReleaseConfig",
    "faults_of",
    "load",
    "merge",
    "parse",
    "parse_json",
    "read_yaml",
]
