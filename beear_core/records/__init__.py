"""What the steps measured and decided, as frozen values that go to JSON and back unchanged.

Every record carries ``schema_version`` and a digest over its canonical JSON (sorted keys, no spaces, UTF-8), so that two
records are the same if and only if their digests are. NaN and infinity are refused: a value that was not measured is
``None``. Nothing here imports torch.
"""

from beear_core.records.champion import ChampionRecord, ChampionState
from beear_core.records.decision import BOUND, CheckResult, Decision, Provenance
from beear_core.records.evaluation import EvaluationRecord, Outcome, SuiteEntry, Vulnerability, VulnerabilityPoint
from beear_core.records.inputs import DataSource, FileEntry, IntakeRecord, RuleResult, ValidationRecord
from beear_core.records.ledger import Event, LedgerEntry
from beear_core.records.measured import Environment, Estimate, Metric
from beear_core.records.mitigation import DriftEntry, Ending, MitigationRecord, PlaceRecord, RoundRecord
from beear_core.records.record import SCHEMA_VERSION, Record, canonical_json, digest_json
from beear_core.records.release import Approval, ReleaseRecord, Verification, Waiver, check_label
from beear_core.records.status import RunState, StatusRecord, StepState, StepStatus

__all__ = [
    "BOUND",
    "SCHEMA_VERSION",
    "Approval",
    "ChampionRecord",
    "ChampionState",
    "CheckResult",
    "DataSource",
    "Decision",
    "DriftEntry",
    "Ending",
    "Environment",
    "Estimate",
    "EvaluationRecord",
    "Event",
    "FileEntry",
    "IntakeRecord",
    "LedgerEntry",
    "Metric",
    "MitigationRecord",
    "Outcome",
    "PlaceRecord",
    "Provenance",
    "Record",
    "ReleaseRecord",
    "RoundRecord",
    "RuleResult",
    "RunState",
    "StatusRecord",
    "StepState",
    "StepStatus",
    "SuiteEntry",
    "ValidationRecord",
    "Verification",
    "Vulnerability",
    "VulnerabilityPoint",
    "Waiver",
    "canonical_json",
    "check_label",
    "digest_json",
]
