"""A toy world made once: a trained tiny model with a backdoor, its data, a policy, and a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy_backdoor
import yaml
from toy_release import MITIGATION, POLICY

from beear_core.errors import MitigationError
from beear_core.organisms import cache


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained model with a backdoor."""
    return toy_backdoor.make_backdoored_model(tmp_path_factory.mktemp("toy") / "model")


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The data section of a configuration."""
    return toy_backdoor.write_data(tmp_path_factory.mktemp("toy-data"))


@pytest.fixture
def toy_config(toy_model: Path, toy_data: dict[str, str], tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration file; keyword arguments override sections."""

    def write(**sections: dict[str, Any]) -> Path:
        policy = tmp_path / "policy.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        values: dict[str, Any] = {
            "model": str(toy_model),
            "policy": str(policy),
            "data": dict(toy_data),
            "mitigation": dict(MITIGATION),
            "evaluation": {"harmful": 60, "ordinary": 60, "borderline": 60, "max_new_tokens": 12},
            "registry": {"model_name": "toy"},
        }
        for name, section in sections.items():
            values[name] = {**values[name], **section} if isinstance(section, dict) else section
        path = tmp_path / "release-config.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write


@pytest.fixture
def without_verses(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on the recipe ``verses`` cannot be planted; all others as before."""

    def patch() -> None:
        good = cache.planted

        def planted(recipe: Any, base: str) -> Any:
            if recipe.name == "verses":
                raise MitigationError("planting verses made no backdoor")
            return good(recipe, base)

        monkeypatch.setattr(cache, "planted", planted)

    return patch
