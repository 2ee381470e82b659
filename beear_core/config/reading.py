"""From a profile, a file and the command line to a configuration; every fault is reported at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from beear_core.config.schema import ReleaseConfig
from beear_core.errors import ConfigError
from beear_core.uris import HIDDEN, hide_secrets, is_secret_name, without_secrets

T = TypeVar("T")


_NO_SECTION = "must be a section; write its keys below it, indented, one 'key: value' a line, or leave it out"


PROFILES: dict[str, dict[str, Any]] = {
    "quick": {
        "policy": "quick",
        "evaluation": {"harmful": 100, "under_drift": 40, "ordinary": 60, "borderline": 60, "max_new_tokens": 32},
    },
    "standard": {"policy": "standard"},
    "release": {
        "policy": "release",
        "evaluation": {
            "harmful": 220,
            "under_drift": 220,
            "ordinary": 220,
            "borderline": 165,
            "vulnerability_steps": 12,
            "max_new_tokens": 64,
        },
    },
}


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings, later ones winning; a section that is no mapping is kept, so that its fault is reported."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, Mapping):
                below = merged.get(key, {})
                merged[key] = merge(below, value) if isinstance(below, Mapping) else below
            else:
                merged[key] = value
    return merged


def parse(cls: type[T], values: object, where: str) -> T:
    """Build a configuration dataclass from plain values: a mapping, or ``None`` for an empty section.

    Raises:
        ConfigError: listing every unknown key, wrong type and value out of range; or if it is no mapping.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        name = next((f.name for f in dataclasses.fields(ReleaseConfig) if f.default_factory is cls), "document")
        raise ConfigError(f"{where} has 1 fault(s):", [f"{name}: {_NO_SECTION} (given: {_shown(values)})"])
    try:
        # through JSON: strict mode then takes mappings for dataclasses, and still no "8" for 8
        return TypeAdapter(cls).validate_json(_as_json(dict(values), where))
    except ValidationError as error:
        raise ConfigError(f"{where} has {error.error_count()} fault(s):", faults_of(error)) from error


def _as_json(values: dict[str, Any], where: str) -> str:
    """Write plain values as JSON; refuse what only YAML can hold: dates as keys, mappings that hold themselves."""
    try:
        return json.dumps(values, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where} holds what a configuration cannot ({error}); write keys as plain words") from error


def parse_json(cls: type[T], text: str, where: str) -> T:
    """Parse a component's parameter, the text of a JSON object, as ``parse`` does.

    Raises:
        ConfigError: if it is not JSON or no mapping, and as ``parse``.
    """
    # of what is no configuration nobody can tell where a password ends
    given = HIDDEN if "@" in text or is_secret_name(text) else f"{text!r:.80}"
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON ({error}): {given}; give an object, {{}} for defaults") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a mapping, not {given}; give an object, {{}} for defaults")
    return parse(cls, values, where)


def faults_of(error: ValidationError) -> list[str]:
    """Describe each fault on one line: the key's path, what is wrong, and the value given without its secrets."""
    faults = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"]) or "document"
        message = {
            "unexpected_keyword_argument": "unknown key; see docs/configuration.md for the known ones",
            "extra_forbidden": "unknown key",
            "dataclass_type": _NO_SECTION,
        }.get(item["type"], item["msg"])
        # the known ones hold no password, though some are called tokens
        name = str(item["loc"][-1]) if "unknown key" in message else ""
        faults.append(f"{path}: {message} (given: {_shown(item['input'], name)})")
    return faults


def _shown(value: object, name: str = "") -> str:
    """Write a value for a message: without secrets, and not too long."""
    # cut at last: half a URI does not tell any more that there is a password in it
    return f"{hide_secrets(repr(_open(value, name))):.80}"


def _open(value: object, name: str) -> object:
    """Replace what is a secret in a value, by its name or inside a URI."""
    if isinstance(value, Mapping):
        return {key: _open(below, str(key)) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_open(below, name) for below in value]
    if isinstance(value, str):
        return HIDDEN if is_secret_name(name) else without_secrets(value)
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: if it cannot be read, is not YAML, or is not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except yaml.MarkedYAMLError as error:
        # what it says in full repeats the line, and a password in it
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path} is not YAML: {error.problem}{where}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date with 13 months is a ValueError
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: the top level must be a mapping, not {type(values).__name__}")
    _as_json(values, str(path))
    return values


def load(path: Path | None, profile: str, overrides: Mapping[str, Any]) -> ReleaseConfig:
    """Build the configuration of a release from profile, file and command line, the later ones winning.

    Raises:
        ConfigError: with every fault of the merged configuration.
    """
    if profile not in PROFILES:
        raise ConfigError(f"unknown profile {profile!r}; choose one of {', '.join(PROFILES)}")
    known = {f.name for f in dataclasses.fields(ReleaseConfig)}
    # a section whose lines are all commented out is null: nothing is overridden
    given = {k: v for k, v in (read_yaml(path) if path else {}).items() if v is not None or k not in known}
    values = merge(PROFILES[profile], given, overrides)
    config = parse(ReleaseConfig, values, str(path) if path else "the configuration")
    m = config.mitigation
    faults = []
    if not config.model:
        faults.append("model: not given; name a folder or URI with --model or in the file")
    for name, total, held, kept_out in (
        ("anchors", m.anchors, "held_back", m.held_back),
        ("performance_anchors", m.performance_anchors, "held_back_ordinary", m.held_back_ordinary),
    ):
        if total <= kept_out:
            faults.append(f"mitigation.{name}: {total} leaves none to train on beside {held}={kept_out}; raise it")
    if faults:
        raise ConfigError(f"{path or 'the configuration'} has {len(faults)} fault(s):", faults)
    return config
