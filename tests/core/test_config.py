"""Whatever stands in a configuration file is taken, or refused with its name, its value and what to write instead."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beear_core.config import (
    DataConfig,
    EvaluationConfig,
    MitigationConfig,
    PromotionConfig,
    RegistryConfig,
    ReleaseConfig,
    load,
    parse,
    parse_json,
    read_yaml,
)
from beear_core.errors import ConfigError

SECTIONS = {
    "data": DataConfig,
    "mitigation": MitigationConfig,
    "evaluation": EvaluationConfig,
    "registry": RegistryConfig,
    "promotion": PromotionConfig,
}


def write(folder: Path, text: str) -> Path:
    path = folder / "release.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- sections --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["standard", "quick"])
@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("nothing", ["", " null", " ~", "\n  # seed: 1"])
def test_an_empty_section_is_as_good_as_none(tmp_path: Path, name: str, nothing: str, profile: str) -> None:
    path = write(tmp_path, f"model: /m\n{name}:{nothing}\n")
    assert load(path, profile, {}) == load(write(tmp_path, "model: /m\n"), profile, {})
    path = write(tmp_path, f"{name}:{nothing}\n")
    assert parse(SECTIONS[name], read_yaml(path).get(name, {}), "x") == SECTIONS[name]()


def test_an_empty_section_takes_what_the_command_line_says(tmp_path: Path) -> None:
    config = load(write(tmp_path, "data:\nmodel:\npolicy:\n"), "quick", {"model": "/m", "data": {"triggers": "t.jsonl"}})
    assert config == load(None, "quick", {"model": "/m", "data": {"triggers": "t.jsonl"}})


@pytest.mark.parametrize(
    ("name", "value"), [("data", "7"), ("registry", "[1]"), ("evaluation", "builtin"), ("mitigation", "false")]
)
def test_a_section_that_is_none_is_refused_by_name_and_value(tmp_path: Path, name: str, value: str) -> None:
    path = write(tmp_path, f"model: /m\n{name}: {value}\n")
    shown = {"7": "7", "[1]": r"\[1\]", "builtin": "'builtin'", "false": "False"}[value]
    message = rf"- {name}: must be a section; write its keys below it.*or leave it out \(given: {shown}\)"
    for overrides in ({}, {name: {"seed": 1}}):  # what the command line says does not hide what the file says
        with pytest.raises(ConfigError, match=message) as caught:
            load(path, "quick", overrides)
        assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match=message):
        parse(SECTIONS[name], read_yaml(path)[name], str(path))


def test_a_section_that_is_none_is_reported_beside_the_other_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, "model: /m\ndata: 7\nregistry: {alias: v7}\nregisty:\n"), "standard", {})
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["data", "registry.alias", "registy"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 2020-13-45\n", "is not YAML: month must be in 1..12"),
        ("{2020-01-01: x}\n", "holds what a configuration cannot"),
        ("[" * 3000, "is not YAML"),
        ("data: &a {harmful: *a}\n", "holds what a configuration cannot"),
        (f"model: {'9' * 5000}\n", "is not YAML"),
    ],
)
def test_what_only_yaml_can_hold_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, text), "standard", {"model": "/m"})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*SECTIONS, "model", "policy", "x"]), VALUES))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_else_than_a_configuration_error_is_raised(tmp_path: Path, values: dict[str, Any]) -> None:
    import yaml

    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=False), encoding="utf-8")
    with contextlib.suppress(ConfigError):
        assert isinstance(load(path, "standard", {"model": "/m"}), ReleaseConfig)


# --- a component's parameter -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"evaluation_json is not JSON \(.*\): '\{'; give an object"),
        ("", "evaluation_json is not JSON"),
        ("[" * 100_000, "evaluation_json is not JSON"),
        ("null", "evaluation_json must be a mapping, not 'null'; give an object"),
        ("[1]", r"evaluation_json must be a mapping, not '\[1\]'"),
        ('{"seeed": 1}', "- seeed: unknown key"),
    ],
)
def test_a_parameter_that_is_no_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_json(EvaluationConfig, text, "evaluation_json")


def test_a_parameter_is_read() -> None:
    assert parse_json(EvaluationConfig, json.dumps({"seed": 3}), "evaluation_json") == EvaluationConfig(seed=3)


# --- places ----------------------------------------------------------------------------------------------------------


def test_home_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    text = "model: ~/m\npolicy: ~/p.yaml\ndata: {triggers: ~/t.jsonl, harmful: ~/h.csv, ordinary: a/~b.csv}\n"
    config = load(write(tmp_path, text), "standard", {})
    assert (config.model, config.policy) == ("/home/someone/m", "/home/someone/p.yaml")
    assert (config.data.triggers, config.data.harmful) == ("/home/someone/t.jsonl", "/home/someone/h.csv")
    assert (config.data.ordinary, config.data.borderline) == ("a/~b.csv", "builtin")


def test_nobodys_home_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model: .*home directory.*'~nobody-here/m'; write the whole path"):
        load(write(tmp_path, "model: ~nobody-here/m\n"), "standard", {})


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "http://host:port/x",
            r"registry.tracking_uri: .*a port is a number from 0 to 65535; write for instance http://mlflow.*given: 'http://host",
        ),
        ("http://host:99999", "registry.tracking_uri: .*a port is a number from 0 to 65535; write for instance"),
        ("http://[::1", "registry.tracking_uri: .*host or port is not valid"),
    ],
)
def test_a_bad_port_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(None, "standard", {"model": "/m", "registry": {"tracking_uri": uri}})


def test_a_password_that_reads_like_a_port_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="holds a user, a password or a token") as caught:
        load(None, "standard", {"model": "/m", "registry": {"tracking_uri": "http://me:se/cret@host"}})
    assert "cret" not in str(caught.value)
