"""Every fault of a policy file, found at once and told with its place and its remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from beear_core.errors import PolicyError
from beear_core.evaluation.metrics import METRICS


def check_faults(check: Mapping[str, Any]) -> list[str]:
    """Find faults between the fields of one check; takes raw values too, so that they are listed beside wrong types."""
    faults = []
    spec = METRICS.get(str(check.get("metric")))
    if spec is None:
        faults.append(f"metric {check.get('metric')!r} is unknown; the known ones are {', '.join(METRICS)}")
    limits = [name for name in ("at_most", "at_least") if check.get(name) is not None]
    if len(limits) != 1:
        given = "both at_most and at_least" if limits else "neither at_most nor at_least"
        faults.append(f"{given} given; give exactly one of the two")
    least = 0 if check.get("versus", "absolute") == "absolute" else -1
    for name in limits if spec is not None and spec.kind == "rate" else ():
        number = check[name]
        if isinstance(number, (int, float)) and math.isfinite(number) and not least <= number <= 1:
            faults.append(f"{name} is {number}, but a rate lies between {least} and 1; write 0.05 for 5%")
    if check.get("missing") == "skip" and spec and not _may_skip(check):
        faults.append(
            f"missing: skip is only for what may be absent (known triggers, the champion); {spec.name} must be measured"
        )
    if check.get("versus") == "champion" and spec and spec.pooled == "drift":
        faults.append(
            f"versus: champion cannot be used with {spec.name}: perturbations are found anew on every candidate; use "
            "versus: absolute or before"
        )
    if check.get("versus") == "champion" and spec and spec.against_reference:
        faults.append(
            f"versus: champion cannot be used with {spec.name}: each model's is measured against the candidate that it was "
            "made from; use versus: absolute"
        )
    return faults


def policy_faults(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Find faults between checks: an id used twice, or nothing that could ever refuse."""
    ids = [str(check["id"]) for check in checks if "id" in check]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    faults = [f"check id {name!r} is used {ids.count(name)} times; give each check its own" for name in repeated]
    hard = [check for check in checks if check.get("level", "hard") == "hard"]
    if not hard:
        faults.append("no check has level hard, so nothing could ever be refused; make at least one hard")
    elif all(check.get("missing") == "skip" and _may_skip(check) for check in hard):
        faults.append("every hard check may be skipped, so nothing need be measured; set missing: fail in at least one")
    by_trigger = [check for check in hard if (spec := METRICS.get(str(check.get("metric")))) and spec.by_trigger]
    for name in sorted(
        {str(c["metric"]) for c in by_trigger} - {str(c["metric"]) for c in by_trigger if not c.get("category")}
    ):
        faults.append(
            f"{name} is only decided on by category, where triggers are pooled; add a hard check on it without a category, "
            "which looks at every trigger"
        )
    return faults


def all_faults(
    error: ValidationError, values: Mapping[str, Any], policy_keys: Sequence[str], check_keys: Sequence[str]
) -> list[str]:
    """List every fault once: those that pydantic found, and those between fields, which it did not come to."""
    raw = values.get("checks")
    checks = [check for check in raw if isinstance(check, dict)] if isinstance(raw, list) else []
    faults = []
    for item in error.errors():
        if item["type"] == "value_error":
            continue  # raised by the models from the two functions above; listed below, one by one
        known = check_keys if len(item["loc"]) > 1 else policy_keys
        message = f"unknown key; known are {', '.join(known)}" if item["type"] == "extra_forbidden" else item["msg"]
        given = "" if item["type"] == "missing" else f" (given: {item['input']!r:.80})"
        faults.append(f"{_place(item['loc'], raw)}: {message}{given}")
    for number, check in enumerate(checks, 1):
        faults += [f"{_name(check, number)}: {fault}" for fault in check_faults(check)]
    return faults + (policy_faults(checks) if isinstance(raw, list) else [])


def read_mapping(text: str, where: str) -> dict[str, Any]:
    """Read YAML text whose top level is a mapping.

    Raises:
        PolicyError: if it is not YAML, gives a key twice, or is no mapping.
    """
    try:
        values = yaml.load(text, Loader=_OneKeyLoader)
    except yaml.YAMLError as error:
        raise PolicyError(f"{where} is not YAML that can be read: {error}") from error
    if not isinstance(values, dict):
        raise PolicyError(f"{where}: the top level must be a mapping with schema_version, name, description, checks")
    return values


class _OneKeyLoader(yaml.SafeLoader):
    """YAML in which a key given twice is a fault (by default the last one silently wins), and every key is a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                name = f"the key {key.value!r} is given twice" if isinstance(key, yaml.ScalarNode) else "a key is no word"
                raise yaml.constructor.ConstructorError(None, None, name, key.start_mark)
            seen.add(key.value)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


def _may_skip(check: Mapping[str, Any]) -> bool:
    spec = METRICS.get(str(check.get("metric")))
    return check.get("versus") == "champion" or (spec is not None and spec.optional)


def _place(loc: tuple[int | str, ...], raw: Any) -> str:
    """Name the place of a fault: ``check 'nll' at_most`` rather than ``checks.4.at_most``."""
    match loc:
        case ("checks", int(index), *rest):
            return " ".join([_name(raw[index], index + 1), *map(str, rest)])
        case _:
            return ".".join(map(str, loc)) or "document"


def _name(check: Any, number: int) -> str:
    return f"check {check['id']!r}" if isinstance(check, dict) and "id" in check else f"check number {number}"
