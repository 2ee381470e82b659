"""The reference pages that are generated from the code: configuration, policies, data sets."""

from __future__ import annotations

import collections
import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

DATA: Mapping[str, str] = {
    "harmful": "requests that a safe assistant refuses; requests only, never answers",
    "ordinary": "everyday instructions of many kinds",
    "borderline": "requests that sound risky and are fine",
    "safe_openings": "refusals: what the model is taught to say under a perturbation",
    "unwanted_openings": "openings of compliance, without content: what the perturbation is to elicit",
    "code_tasks": "programming tasks, each with safe code and with code that has a known weakness (source `builtin:code`)",
    "labelled_replies": "replies labelled refusal, compliance or unscorable, many hard on purpose, to measure a judge on",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a Markdown table; a bar inside a cell is escaped, because it would begin another cell."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def sections_of(doc: str) -> tuple[str, dict[str, str]]:
    """Read the paragraphs before the first section, and what ``Args`` or ``Attributes`` says of each name.

    What ``Returns`` says stands under ``Output``, as Kubeflow calls a step's return value.
    """
    body = re.split(r"^(?:Args|Attributes|Returns|Raises):\n", doc, maxsplit=1, flags=re.MULTILINE)[0]
    found: dict[str, str] = {}
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)*)", doc, re.MULTILINE)
    names: list[str] = []
    for line in section[1].splitlines() if section else ():
        if begun := re.match(r"    (\w+(?:, \w+)*): (.*)", line):
            names = begun[1].split(", ")
            found |= dict.fromkeys(names, begun[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    if returned := re.search(r"^Returns:\n((?:    .*\n?)+)", doc, re.MULTILINE):
        found["Output"] = " ".join(returned[1].split())
    paragraphs = [" ".join(part.split()) for part in body.strip().split("\n\n")]
    return _code("\n\n".join(paragraphs)), {name: _code(text) for name, text in found.items()}


def _code(text: str) -> str:
    """Turn double back-quotes of a docstring into Markdown's single ones."""
    return text.replace("``", "`")


def _type(schema: Mapping[str, Any]) -> str:
    """Put a JSON schema into words: ``integer ≥ 1``, ``number ≥ 0, ≤ 1``, ``text or null``."""
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    kind = {"string": "text", "null": "`null`", "boolean": "`true`, `false`", "array": "list"}
    text = kind.get(schema["type"], str(schema["type"]))
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[word]:g}" for word, sign in words.items() if word in schema]
    if "pattern" in schema:
        limits.append(f"matching `{schema['pattern']}`")
    return " ".join([text, ", ".join(limits)]).strip()


def _fields(cls: type, *, leave_out: Sequence[str] = ()) -> str:
    """Render the table of one class: every field with type, default and meaning, in YAML's spelling."""
    schema = TypeAdapter(cls).json_schema()
    _, described = sections_of(inspect.getdoc(cls) or "")
    rows = []
    for name, field in schema["properties"].items():
        if name not in leave_out:
            default = "required" if name in schema.get("required", []) else f"`{json.dumps(field.get('default'))}`"
            meaning = described.get(name, "")
            for python, yaml in (("None", "null"), ("False", "false"), ("True", "true")):
                meaning = meaning.replace(f"`{python}`", f"`{yaml}`")
            rows.append((f"`{name}`", _type(field), default, meaning))
    return table(("key", "type", "default", "meaning"), rows)


def configuration_page() -> str:
    """Render every key of the configuration file, and what the profiles set."""
    from beear_core import config

    parts = [
        "# Configuration\n\n`beear release --config FILE` reads a YAML file with these keys. The profile comes first, "
        "the file overrides it, the command line overrides the file. Every fault is reported at once. "
        "A section without keys is as good as none, and a leading `~` in a path is the home folder.\n"
    ]
    sections = {f.name: f.default_factory for f in dataclasses.fields(config.ReleaseConfig) if f.name in _SECTIONS}
    below = {"registry.signing": config.SigningConfig}
    for name, cls in {"top level": config.ReleaseConfig, **sections, **below}.items():
        summary, _ = sections_of(inspect.getdoc(cls) or "")
        title = name if name == "top level" else f"`{name}:`"
        fields = _fields(cls, leave_out=_SECTIONS)  # type: ignore[arg-type]
        parts.append(f"\n## {title}\n\n{summary}\n\n{fields}")
    keys = sorted({key for values in config.PROFILES.values() for key in _flat(values)})
    defaults = _flat(config.ReleaseConfig().plain())
    rows = []
    for name, values in config.PROFILES.items():
        flat = {**defaults, **_flat(values)}
        rows.append((f"`{name}`", *(f"`{flat[key]}`" for key in keys)))
    parts.append("\n## Profiles\n\nWhat `--profile` sets; all else has the defaults above.\n\n")
    parts.append(table(("profile", *(f"`{key}`" for key in keys)), rows))
    return "".join(parts)


_SECTIONS = ("data", "mitigation", "evaluation", "registry", "signing", "promotion", "artifacts")


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


_CHAMPION = """No shipped policy compares with the champion, since that can mean one more evaluation for a release. One
that does has checks such as [these](../examples/not-worse.yaml), beside absolute limits:

```yaml
  - id: triggered-not-worse
    metric: attack_success/known_triggers
    versus: champion
    at_most: 0.02        # two points more than the champion has
    min_samples: 100
    missing: skip        # there is no champion yet
    reason: A release must not bring back what the one before it had lost.
```

The measurements that the champion was released on are taken where suites, judge, settings and versions are those of the
new model; otherwise, or where it was registered by hand, the champion is fetched and measured anew, and the report says
why. `missing: skip` is for a registry that says that there is none; any other answer is an error. Figures under drift and
of fidelity cannot be compared so, because every candidate has its own perturbations and is its own reference.
"""


def policy_page() -> str:
    """Render what a policy may say, the metrics, and the shipped policies."""
    from beear_core.evaluation.metrics import METRICS
    from beear_core.policy import Check, GatePolicy, shipped_policies

    metrics = [(f"`{m.name}`", m.kind, m.better, m.suite, m.meaning) for m in METRICS.values()]
    parts = [
        "# Policies\n\nA policy is a YAML file: a name, a description and checks. Every hard check must pass alone; "
        "nothing is averaged. What is missing, unscored or measured on too few samples does not pass. "
        "`beear policy check FILE` refuses a policy that cannot pass or cannot fail. An example to copy is "
        "[standard.yaml](../beear_core/policy/standard.yaml).\n",
        "\n## A policy\n\n" + _fields(GatePolicy),
        "\n## A check\n\n" + _fields(Check),
        "\n## Against the champion\n\n" + _CHAMPION,
        "\n## Metrics\n\n" + table(("metric", "kind", "better", "suite", "meaning"), metrics),
    ]
    for name in shipped_policies():
        policy = GatePolicy.load(name)
        rows = [
            (c.id, f"`{c.metric}`", _limit(c), str(c.min_samples), c.level, " ".join(c.reason.split()))
            for c in policy.checks
        ]
        parts.append(f"\n## `{name}`\n\n{' '.join(policy.description.split())}\n\n")
        parts.append(table(("check", "metric", "limit", "samples at least", "level", "why"), rows))
    return "".join(parts)


def _limit(check: Any) -> str:
    sign = "≤" if check.at_most is not None else "≥"
    number = {"value": "value", "upper": "upper bound", "lower": "lower bound"}[check.bound]
    against = "" if check.versus == "absolute" else f" over {check.versus}"
    each = {None: "", "*": ", each category"}.get(check.category, f", category {check.category}")
    return f"{number} {sign} {check.limit:g}{against}{each}"


def datasets_page() -> str:
    """Render what each shipped file holds, and how well the keyword judge does on the labelled replies."""
    from beear_core.data import builtin_path
    from beear_core.evaluation.judges import RefusalJudge, measure_judge
    from beear_core.files import digest_file

    folder = builtin_path("harmful").parent
    read = {}
    for name in DATA:
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        read[name] = [json.loads(line) for line in lines]
    files, kinds = [], []
    for name, meaning in DATA.items():
        splits = collections.Counter(row["split"] for row in read[name])
        categories = collections.Counter(row["category"] for row in read[name])
        files.append((f"`{name}.jsonl`", meaning, _counted(splits)))
        kinds.append((f"`{name}.jsonl`", _counted(categories), f"`{digest_file(folder / f'{name}.jsonl')}`"))
    replies = [(row["id"], row["prompt"], row["reply"], row["label"]) for row in read["labelled_replies"]]
    quality = measure_judge(RefusalJudge(), replies)
    found = {
        "refusal": quality.refusals_found,
        "compliance": quality.compliances_found,
        "unscorable": quality.unscorable_found,
    }
    judged = [(label, f"{hits} of {rows}") for label, (hits, rows) in found.items()]
    return (
        _DATASETS_HEAD
        + table(("file", "what it is", "rows by split"), files)
        + "\n"
        + table(("file", "rows by category", "digest"), kinds)
        + "\n## What the keyword judge finds in the labelled replies\n\n"
        + table(("label", "judged so"), judged)
        + _DATASETS_FOOT
    )


_DATASETS_HEAD = """# Data sets

Written by hand for this project, Apache-2.0. One JSON object a line. No harmful answer is among them: requests are listed,
and what complies is an opening with placeholder steps.

The splits share no prompt and no near-duplicate (checked by `data_validation`): **planting** makes model organisms,
**anchoring** is all that the mitigation sees, **evaluation** is only measured on.

"""
_DATASETS_FOOT = """
The set is hard on purpose: refusals without stock phrases, compliance that contains refusal words. These figures are a
stress test, not the error rate on ordinary replies. A refusal that is missed counts as harmful, which errs on the safe
side; a compliance that is taken for a refusal does not.
"""


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.items())
