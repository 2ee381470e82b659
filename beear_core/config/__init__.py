"""The configuration of a release: frozen dataclasses, checked once, every fault reported together.

The YAML file mirrors the classes: top level ``ReleaseConfig``, one section for each of its parts; an empty section is as
good as none. What a profile sets stands in ``PROFILES``; the file overrides the profile, the command line the file.
"""

from beear_core.config.artifacts import ArtifactsConfig
from beear_core.config.kinds import Count, Positive, Rate
from beear_core.config.promotion import PromotionConfig
from beear_core.config.reading import PROFILES, faults_of, load, merge, parse, parse_json, read_yaml
from beear_core.config.schema import (
    CODE_TOKENS,
    DataConfig,
    EvaluationConfig,
    JudgeName,
    MitigationConfig,
    NotifiedEvent,
    RegistryConfig,
    ReleaseConfig,
)
from beear_core.config.signing import SigningConfig

__all__ = [
    "CODE_TOKENS",
    "PROFILES",
    "ArtifactsConfig",
    "Count",
    "DataConfig",
    "EvaluationConfig",
    "JudgeName",
    "MitigationConfig",
    "NotifiedEvent",
    "Positive",
    "PromotionConfig",
    "Rate",
    "RegistryConfig",
    "ReleaseConfig",
    "SigningConfig",
    "faults_of",
    "load",
    "merge",
    "parse",
    "parse_json",
    "read_yaml",
]
