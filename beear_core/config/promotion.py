"""How a version becomes champion: at once on a pass, or after somebody approved it."""

from __future__ import annotations

from dataclasses import dataclass

from beear_core.config.kinds import STRICT, AliasName, Place


@dataclass(frozen=True, kw_only=True)
class PromotionConfig:
    """How a version becomes champion.

    Attributes:
        require_approval: ``True``: a pass only makes the version a candidate, and ``beear approve`` makes it champion.
        candidate_alias: what a version that awaits approval is given; another than ``registry.alias``.
        waivers: a YAML or JSON file of waivers, for ``beear promote`` and ``beear approve``; a release itself takes none,
            because a waiver names a decision that is there.
    """

    __pydantic_config__ = STRICT
    require_approval: bool = False
    candidate_alias: AliasName = "candidate"
    waivers: Place | None = None

    def fault(self, alias: str) -> str | None:
        """Say what is wrong with these settings beside the champion's alias, ``None`` where nothing is."""
        if not self.require_approval or self.candidate_alias != alias:
            return None
        return (
            f"promotion.candidate_alias is {alias!r}, and so is registry.alias: a version would be champion before anybody "
            "approved it; choose two names"
        )
