"""A component's configuration is a JSON object, or the component ends with 2 and says what was given."""

from __future__ import annotations

import importlib
import inspect

import pytest

from beear_core.errors import ConfigError

PARAMETERS = {
    "data_validation": "config_json",
    "safety_eval": "config_json",
    "beear_mitigation": "config_json",
    "champion_eval": "config_json",
    "registry_gate": "registry_json",
    "release_artifacts": "artifacts_json",
}


@pytest.mark.parametrize("component", PARAMETERS)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"is not JSON \(.*\): '\{'; give an object"),
        ("", "is not JSON"),
        ("[1]", "must be a mapping"),
        ("null", "mapping"),
    ],
)
def test_what_is_no_json_object_is_refused(component: str, text: str, message: str) -> None:
    run = importlib.import_module(f"components.{component}.step").run_component
    arguments = {name: {"evidence": {}, "label": "before"}.get(name, "x") for name in inspect.signature(run).parameters}
    with pytest.raises(ConfigError, match=message):
        run(**{**arguments, PARAMETERS[component]: text})
