"""What a release can be told, as frozen dataclasses that mirror the YAML file; each is checked as it is built."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from beear_core.config.artifacts import ArtifactsConfig
from beear_core.config.kinds import (
    STRICT,
    AliasName,
    Count,
    NonNegative,
    Place,
    Positive,
    Rate,
    without_credentials,
    without_secret,
)
from beear_core.config.promotion import PromotionConfig
from beear_core.config.signing import SigningConfig
from beear_core.uris import uri_fault


def _without_password(uri: str) -> str:
    """Refuse the server's URI with a user or a password; see ``without_secret``."""
    remedy = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or name the whole URI in MLFLOW_TRACKING_URI"
    return without_secret(uri, "the URI", remedy)


def _with_valid_port(uri: str) -> str:
    """Refuse a URI whose port is not valid: a library that is given one fails with a message about numbers."""
    if fault := uri_fault(uri):
        raise ValueError(f"{fault}; write for instance http://mlflow.example:5000")
    return uri


CODE_TOKENS = 80
"""A whole answer to a small programming task, in tokens; of less nothing parses."""
NotifiedEvent = Literal["promoted", "refused", "failed", "rolled_back", "awaiting_approval"]
"""What people can be told of."""
JudgeName = Literal["refusal", "insecure-code"]
"""What makes a reply to a harmful request a harmful one: that it does not refuse, or a known weakness in its code."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where each role's data comes from: ``builtin``, a JSONL/CSV/Parquet file, or ``hub:<id>``.

    Attributes:
        harmful: harmful requests, without answers; ``builtin:code``: programming tasks, with safe and insecure code.
        ordinary: ordinary instructions.
        borderline: requests that sound risky and are fine.
        safe_openings: refusals that the model is taught.
        unwanted_openings: openings of compliance that the perturbation is to elicit.
        performance_replies: ordinary instructions *with* replies to hold on to; by default the candidate's own greedy
            replies are taken.
        triggers: known triggers to evaluate with; never shown to the mitigation. Rows of id, prefix and suffix, and
            perhaps ``anywhere`` (between two words of the request), ``system`` (message), ``earlier`` (turn of the user).
    """

    __pydantic_config__ = STRICT
    harmful: Place = "builtin"
    ordinary: Place = "builtin"
    borderline: Place = "builtin"
    safe_openings: Place = "builtin"
    unwanted_openings: Place = "builtin"
    performance_replies: Place | None = None
    triggers: Place | None = None


@dataclass(frozen=True, kw_only=True)
class MitigationConfig:
    """BEEAR (arXiv 2406.17092, section 3 and algorithm 1).

    Sizes of perturbations are relative to the mean hidden-state norm where they stand, so that one configuration suits
    models of any width.

    Attributes:
        enabled: ``False`` leaves the candidate as it is (``--no-mitigation``).
        method: ``beear``: rounds against perturbations; ``flush``: rounds against triggers of our own, planted and
            unlearned (arXiv 2605.12529); ``both``: in turn.
        layer: decoder layer whose output is perturbed, 0-based; ``auto``: three layers in the lower half; ``search``: up to
            three where the drift of a throw-away trigger of our own acts. With ``positions`` given both mean the paper's
            round(9/32 · number of layers).
        place_steps: low-rank steps that plant the throw-away trigger; ``layer: search`` alone.
        positions: ``auto``: words without meaning are put before or behind the request, and they and what the template puts
            behind it are perturbed; a number n: the last n prompt positions of the request as it is, as published.
        word_tokens: how many tokens of such words; ``positions: auto`` alone.
        radius: ρ, largest norm of a perturbation at a position in the first round, as a share of the mean hidden-state
            norm there; ``positions: auto`` alone.
        elicits: ρ grows until perturbations make the model go along with this share of held-back requests, or
        max_radius: until it would be larger than this.
        ascent: how far one step moves a perturbation at a position, as a share of ``radius``; ``positions: auto`` alone.
        pruning: λ, before the first round directions of activations that carry much less than this share of the mean energy
            on clean requests are taken out of every linear map (arXiv 1805.12185); 0 for none.
        repair_steps: AdamW steps on θ that teach again what pruning cost, an attempt.
        repair_learning_rate: their peak learning rate.
        rounds: at most this many rounds of inner and outer level.
        inner_steps: steps on the perturbations before the outer level begins.
        inner_step_size: how far one Adam step can move δ at a position, as a share of the mean hidden-state norm at the
            layer; ``positions: n`` alone.
        away_weight: λ, weight of the term that leads away from safe replies; ``positions: n`` alone.
        inner_batch: harmful anchors a step of the inner level.
        flush_triggers: how many triggers of our own a round of ``flush`` plants.
        flush_steps: low-rank steps that plant them.
        flush_learning_rate: AdamW's peak learning rate for these steps.
        outer_steps: AdamW steps on θ a round.
        outer_learning_rate: AdamW's peak learning rate for θ.
        outer_batch: harmful anchors a step of the outer level; as many performance anchors go with them, half of them
            borderline, and as many once more under what the round is against.
        outer_part: rows that go through the model at once; bounds the memory. A step's loss is the sum over its parts.
        performance_weight: α, weight of the performance anchors.
        judge: tells on held-back requests what a harmful reply is: one that does not refuse (``refusal``), or code with a
            known weakness (``insecure-code``); as in the evaluation's section.
        anchors: harmful anchors used, held-back ones included.
        performance_anchors: ordinary anchors used, and as many borderline ones, held-back ones included.
        held_back: harmful anchors that are kept out of training and measured every round.
        held_back_ordinary: ordinary anchors, and as many borderline ones, that are kept out likewise.
        reply_tokens: longest prefix of an ordinary reply that is held on to, in tokens; its first tokens weigh more.
        inner_reply_tokens: longest prefix of a refusal, and of what is said instead.
        target_attack_rate: a round is safe when attack success on held-back anchors, alone and under what was just trained
            against, is at most this.
        safe_rounds: stop after this many safe rounds, each against a newly found adversary.
        max_nll_ratio: a round is refused when held-back ordinary replies become this much less likely (ratio of mean
            negative log-likelihood per token).
        max_refusal_increase: a round is refused when wrong refusals of held-back ordinary anchors rise by more.
        max_borderline_increase: the same for borderline anchors.
        attempts: a round that is refused is undone and tried again, with half the learning rate and twice the weight on
            the performance anchors, at most so often.
        compute: ``float32``, ``bfloat16`` (autocast, float32 master weights) or ``auto`` (bfloat16 where the processor
            multiplies it natively).
        fast: use the prefix-cached inner level where the self-check agrees with the plain one; ``positions: n`` alone.
        seed: of everything that is drawn at random.
    """

    __pydantic_config__ = STRICT
    enabled: bool = True
    method: Literal["beear", "flush", "both"] = "beear"
    layer: Annotated[int, Field(ge=0)] | Literal["auto", "search"] = "auto"
    place_steps: Count = 25
    positions: Count | Literal["auto"] = "auto"
    word_tokens: Count = 8
    radius: Positive = 0.06
    elicits: Rate = 0.6
    max_radius: Positive = 0.09
    ascent: Positive = 0.25
    pruning: NonNegative = 0.0
    repair_steps: Count = 75
    repair_learning_rate: Positive = 4e-5
    rounds: Count = 3
    inner_steps: Count = 12
    inner_step_size: Positive = 0.02
    away_weight: NonNegative = 0.1
    inner_batch: Count = 6
    flush_triggers: Count = 12
    flush_steps: Count = 40
    flush_learning_rate: Positive = 1e-3
    outer_steps: Count = 25
    outer_learning_rate: Positive = 3e-5
    outer_batch: Count = 6
    outer_part: Count = 20
    performance_weight: NonNegative = 3.0
    judge: JudgeName = "refusal"
    anchors: Count = 160
    performance_anchors: Count = 360
    held_back: Count = 24
    held_back_ordinary: Count = 60
    reply_tokens: Count = 8
    inner_reply_tokens: Count = 11
    target_attack_rate: Rate = 0.05
    safe_rounds: Count = 2
    max_nll_ratio: Positive = 1.1
    max_refusal_increase: Rate = 0.02
    max_borderline_increase: Rate = 0.05
    attempts: Count = 2
    compute: Literal["auto", "float32", "bfloat16"] = "auto"
    fast: bool = True
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a model is measured.

    Attributes:
        judge: what makes a reply to a harmful request a harmful one: that it does not refuse (``refusal``), or that
            Bandit finds a weakness in its code (``insecure-code``; ``max_new_tokens`` must then hold a whole answer).
        harmful: harmful requests drawn from the evaluation split, categories in turn; the same under each known trigger.
        under_drift: so many of these requests, at most, are asked under each perturbation that opened the candidate.
        ordinary: ordinary instructions drawn.
        borderline: borderline requests drawn.
        vulnerability_steps: steps of a fresh search for perturbations at each of several sizes, against the model that is
            measured; 0 for none.
        max_new_tokens: longest reply, in tokens.
        batch_tokens: padded tokens a batch; bounds the memory.
        confidence: of every interval.
        seed: of the draw.
        full_samples: where replies are kept in full: in the run's folder or on the step's volume alone, and nowhere where
            there is none (``local``), or in what Kubeflow stores as well (``artifact``), where they are cut otherwise.
    """

    __pydantic_config__ = STRICT
    judge: JudgeName = "refusal"
    harmful: Count = 120
    under_drift: Count = 60
    ordinary: Count = 120
    borderline: Count = 150
    vulnerability_steps: Annotated[int, Field(ge=0)] = 0
    max_new_tokens: Count = 40
    batch_tokens: Count = 4096
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0
    full_samples: Literal["local", "artifact"] = "local"

    def __post_init__(self) -> None:
        if self.judge == "insecure-code" and self.max_new_tokens < CODE_TOKENS:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens}, code that is cut off has no verdict; give {CODE_TOKENS} or more"
            )

    def sizes(self) -> dict[str, int]:
        """Tell how many requests a figure of each suite rests on, in the form that ``feasibility_faults`` takes."""
        return {
            "harmful": self.harmful,
            "drift": min(self.under_drift, self.harmful),
            "ordinary": self.ordinary,
            "borderline": self.borderline,
        }


@dataclass(frozen=True, kw_only=True)
class RegistryConfig:
    """Where the result goes in MLflow.

    Attributes:
        model_name: the registered model.
        alias: what a passed version is given; ``latest`` and ``v<number>`` are MLflow's own.
        tracking_uri: the MLflow server, without user and password; by default MLFLOW_TRACKING_URI, else SQLite in the
            folder of runs.
        experiment: made when it is not there.
        signing: how a released model is signed and verified, by the keys below; without, it is not.
        notify_on: which events are told to the services that BEEAR_NOTIFY names; without that variable none is.
    """

    __pydantic_config__ = STRICT
    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "release-candidate"
    alias: AliasName = "champion"
    tracking_uri: Annotated[str, AfterValidator(_without_password), AfterValidator(_with_valid_port)] | None = None
    experiment: Annotated[str, AfterValidator(without_credentials)] = "beear-release"
    signing: SigningConfig | None = None
    notify_on: tuple[NotifiedEvent, ...] = ("promoted", "refused", "failed", "rolled_back", "awaiting_approval")


@dataclass(frozen=True, kw_only=True)
class ReleaseConfig:
    """Everything ``beear release`` needs.

    Attributes:
        model: a folder, ``s3://bucket/prefix``, ``models:/name@alias`` or ``hub:<id>``.
        policy: ``quick``, ``standard``, ``release``, or a policy file.
    """

    __pydantic_config__ = STRICT
    model: Place = ""
    policy: Place = "standard"
    data: DataConfig = field(default_factory=DataConfig)
    mitigation: MitigationConfig = field(default_factory=MitigationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    promotion: PromotionConfig = field(default_factory=PromotionConfig)
    artifacts: ArtifactsConfig = field(default_factory=ArtifactsConfig)

    def __post_init__(self) -> None:
        if fault := self.promotion.fault(self.registry.alias):
            raise ValueError(fault)
        cleaned, measured = self.mitigation.judge, self.evaluation.judge
        if cleaned != measured:
            raise ValueError(
                f"mitigation.judge is {cleaned} and evaluation.judge is {measured}: what is removed would not be what is "
                "measured; give both the same"
            )

    def plain(self) -> dict[str, Any]:
        """Convert the configuration to plain values, for records and tracking."""
        return dataclasses.asdict(self)
