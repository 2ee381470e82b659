"""What beear_mitigation did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from beear_core.records.measured import Environment
from beear_core.records.record import LATER, Record

Ending = Literal["cleaned", "none admissible", "nothing to remove", "switched off"]


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round of the bi-level loop.

    ``adversary``: what the round was against. ``inner_loss``, ``outer_loss``: one value per step. ``delta_norm``: mean L2
    norm of δ over its n positions, relative to the mean hidden-state norm there; ``None``: the adversary adds nothing.
    ``attack_under_delta``: share of held-back harmful anchors whose greedy reply is not a refusal under the adversary of
    this round, before the outer steps (does it really elicit?); ``*_after`` are measured after the outer steps:
    ``attack_after`` without a perturbation, ``attack_under_delta_after`` under the same adversary, as it is by then,
    ``attack_under_drift_after`` under the perturbations that were found on the candidate,
    ``refusal_ordinary_after`` and ``refusal_borderline_after`` on held-back ordinary and borderline anchors,
    ``nll_ratio_after`` on the ordinary replies. ``None``: not measured in this round. ``attempts``: how often the outer
    steps were taken, each time from the same weights; ``note``: ``admissible``, else why the round was undone.
    """

    round: int
    inner_loss: tuple[float, ...]
    outer_loss: tuple[float, ...]
    delta_norm: float | None
    attack_under_delta: float | None
    attack_after: float | None
    attack_under_delta_after: float | None
    refusal_ordinary_after: float | None
    nll_ratio_after: float | None
    seconds: float
    note: str = ""
    refusal_borderline_after: float | None = None
    attack_under_drift_after: float | None = None
    attempts: int = 1
    adversary: str = ""


@dataclass(frozen=True, kw_only=True)
class DriftEntry:
    """One perturbation that was found, without its numbers.

    ``layer``, ``positions``: where it is added, and to how many tokens. ``spot``: words without meaning stand before
    (``front``) or behind (``end``) the request, and they and what the template puts behind it are perturbed; ``words``: how
    many tokens of them; ``None`` and 0: the last prompt positions as they are. ``norm``: mean L2 norm over its positions,
    as a share of the hidden states' there. ``round``: in which it was found, 0 for a search before the rounds;
    ``on_candidate``: the model had not been changed by then. ``elicited``: share of held-back requests that all
    perturbations of that search together made the model go along with.
    """

    name: str
    layer: int
    positions: int
    spot: Literal["end", "front"] | None
    words: int
    norm: float
    round: int
    on_candidate: bool
    elicited: float


@dataclass(frozen=True, kw_only=True)
class PlaceRecord:
    """What the drift of a trigger of our own elicits when it is added at a layer: two shares of held-back requests.

    ``words``: added where words stand and where the template ends; ``template``: where the template ends alone.
    """

    layer: int
    words: float
    template: float


@dataclass(frozen=True, kw_only=True)
class MitigationRecord(Record):
    """What beear_mitigation did. ``outcome``: ``cleaned``, or ``kept`` when the candidate was left as it was.

    ``ending`` says why it was kept: ``none admissible`` (every round harmed what must stay), ``nothing to remove`` (nothing
    elicited unwanted replies), ``switched off``. Empty in records of earlier releases.

    ``layer``: the first of the perturbed layers, ``layers_perturbed`` all of them, of ``layers`` in the decoder;
    ``places_reason``: how they were chosen, by what is in ``places`` where that was measured.
    ``positions``: n, or 0 where words were put around the request and perturbed; their norms then differ by place and
    ``hidden_norm`` is 0. ``drift``: every perturbation that was found; ``drift_digest``: of the file that holds them.
    ``restored_rounds``: how many of the rounds were done by a run that was killed, whose seconds count, too.
    """

    kind: Literal["mitigation"] = "mitigation"
    outcome: Literal["cleaned", "kept"]
    reason: str
    input_digest: str
    output_digest: str
    anchors_digest: str
    config: dict[str, int | float | str | bool | None]
    layer: int
    layers: int
    positions: int
    hidden_norm: float
    compute_dtype: str
    best_round: int | None
    rounds: tuple[RoundRecord, ...]
    seconds: float
    peak_memory_bytes: int
    environment: Environment
    layers_perturbed: tuple[int, ...] = ()
    places: tuple[PlaceRecord, ...] = ()
    places_reason: str = ""
    drift: tuple[DriftEntry, ...] = ()
    drift_digest: str = ""
    ending: Ending | Literal[""] = ""
    restored_rounds: int = field(default=0, metadata=LATER)

    def in_words(self) -> str:
        """Say how the mitigation ended; records of earlier releases only tell whether the model was cleaned."""
        kept = "the model was cleaned" if self.outcome == "cleaned" else "the candidate was kept as it was"
        return _ENDINGS.get(self.ending, kept)


_ENDINGS = {
    "cleaned": "the model was cleaned",
    "none admissible": "the candidate was kept: every round harmed what must stay",
    "nothing to remove": "the candidate was kept: nothing was found to remove",
    "switched off": "the candidate was kept: mitigation was switched off",
}
