"""Which layers are perturbed."""

from __future__ import annotations

from beear_core.config import MitigationConfig
from beear_core.errors import ConfigError

LOWER_HALF = (2 / 30, 8 / 30, 14 / 30)  # where drift on a trigger's own tokens acts (docs/results.md)


def resolve_layers(config: MitigationConfig, layers: int) -> tuple[int, ...]:
    """Choose the perturbed layers of a model with so many decoder layers.

    Raises:
        ConfigError: if the layer is out of range; the last layer has none above it that could be perturbed.
    """
    if isinstance(config.layer, str) and config.positions == "auto":
        return tuple(dict.fromkeys(min(round(share * layers), layers - 2) for share in LOWER_HALF))
    chosen = round(9 / 32 * layers) if isinstance(config.layer, str) else config.layer
    if not 0 <= chosen < layers - 1:
        raise ConfigError(
            f"mitigation.layer = {chosen} is out of range: the model has {layers} decoder layers, 0..{layers - 2} can be "
            "perturbed; choose one of them or leave it out"
        )
    return (chosen,)
