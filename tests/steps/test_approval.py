"""With approval required a pass makes a candidate, and somebody's word on its decision makes it champion, once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gate_evidence import Case
from gate_runs import NAME, again, broken, champion, config, gate, registry_of, versions
from ledger_store import told
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from beear_core.config import PromotionConfig
from beear_core.errors import BeearError, ConfigError, EvidenceError, RegistryError
from beear_core.records import Decision, ReleaseRecord
from components.mlflow_store.registry import Registry
from components.registry_gate import replay, step
from components.registry_gate.approval import approve
from pipelines.cli import app
from pipelines.local import read_outcome
from pipelines.show import outcome_text

pytestmark = pytest.mark.usefixtures("own_mlflow")
ASKED = PromotionConfig(require_approval=True)
NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)


def asked(case: Case, store: str, out: Path) -> str:
    """Run the gate where approval is required; gives the decision's digest."""
    decision, release = gate(case, store, out, promotion=ASKED)
    assert (release.promoted, release.awaiting_approval, decision.passed) == (False, True, True)
    return decision.digest


def given(store: str, digest: str, **changes: Any) -> ReleaseRecord:
    settings = {"by": "Ada", "reason": "read the report", "now": NOW, **changes}
    return approve(digest, config(store), settings.pop("promotion", ASKED), **settings)


def candidate(store: str) -> str | None:
    found = registry_of(store).get_registered_model(NAME).aliases.get("candidate")
    return None if found is None else str(found)


def tags(store: str, number: int) -> dict[str, str]:
    return dict(versions(store)[number - 1].tags)


def everything(store: str, folder: Path) -> Any:
    """All that an approval may change."""
    model = registry_of(store).get_registered_model(NAME)
    return (
        {alias: str(number) for alias, number in model.aliases.items()},
        [dict(v.tags) for v in versions(store)],
        told(folder),
    )


def test_a_pass_awaits_approval_and_says_so_everywhere(case: Case, store: str, tmp_path: Path) -> None:
    digest = asked(case, store, tmp_path / "out")
    assert (champion(store), candidate(store), told(tmp_path)) == (None, "1", [])
    left = json.loads((tmp_path / "out" / "release.json").read_text())
    assert (left["promoted"], left["awaiting_approval"], left["candidate_alias"]) == (False, True, "candidate")
    assert "AWAITING APPROVAL" in (tmp_path / "out" / "report.html").read_text()

    release = given(store, digest, folder=tmp_path / "out")
    assert (release.promoted, release.champion_after, champion(store)) == (True, "1", "1")
    noted = {name: tags(store, 1)[f"approved_{name}"] for name in ("by", "reason", "at")}
    assert noted == {"by": "Ada", "reason": "read the report", "at": "2027-03-01T12:00:00+00:00"}
    assert [(e["event"], e["by"], e["reason"]) for e in told(tmp_path)] == [("approval", "Ada", "read the report")]
    assert ReleaseRecord.read(tmp_path / "out" / "release.json") == release
    assert "Approved by Ada at 2027-03-01T12:00:00+00:00: read the report" in (tmp_path / "out/report.html").read_text()

    before = everything(store, tmp_path)
    once_more = given(store, digest, by="Bo", reason="me too")
    assert (once_more.promoted, once_more.approval) == (True, release.approval), "who approved first stays"
    assert everything(store, tmp_path) == before

    _, release = gate(case, store, tmp_path / "out", promotion=ASKED)  # as a retry of the step does
    assert (release.promoted, release.awaiting_approval, len(versions(store))) == (True, False, 1)


def test_it_is_replayed_from_mlflow_alone(case: Case, store: str, tmp_path: Path) -> None:
    digest = asked(case, store, tmp_path / "out")
    policy = next(tmp_path.rglob("artifacts/records/policy.yaml"))
    good = policy.read_text()
    policy.write_text(good.replace("at_most: 0.05", "at_most: 0.5"))
    with pytest.raises(EvidenceError, match="the policy has digest"):
        given(store, digest)
    policy.unlink()
    with pytest.raises(
        EvidenceError, match="holds no decision with its policy, so nothing can be replayed; give the run's"
    ):
        given(store, digest)
    assert champion(store) is None
    policy.write_text(good)
    assert given(store, digest).promoted


def test_what_may_not_be_approved_changes_nothing(
    case: Case, refused: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asked(case, store, tmp_path / "out1")
    no = gate(refused, store, tmp_path / "no", promotion=ASKED)[0].digest
    assert candidate(store) == "1", "a refusal is no candidate"
    before = everything(store, tmp_path)

    def fails(error: type[BeearError], said: str, digest: str = first, **changes: Any) -> None:
        with pytest.raises(error, match=said):
            given(store, digest, **changes)
        assert everything(store, tmp_path) == before

    fails(EvidenceError, f"no version of {NAME} was registered for the decision sha256:0", "sha256:0")
    fails(EvidenceError, r"is a refusal \(attack-plain\)", no)
    fails(EvidenceError, "was registered for the decision .*, the one in .* is", folder=tmp_path / "no")
    fails(ConfigError, "neither empty", by=" ")
    fails(ConfigError, "neither empty", reason="")
    verify = Registry.verify

    def meanwhile(self: Any, *given: Any) -> None:
        verify(self, *given)
        registry_of(store).set_registered_model_alias(NAME, "candidate", "2")
        before[0]["candidate"] = "2"

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "verify", meanwhile)
        said = "candidate of .* is version 2 and not version 1, which was to be approved; nothing was changed"
        fails(RegistryError, said)
    fails(RegistryError, said)  # and at once, without the bytes being read
    registry_of(store).set_registered_model_alias(NAME, "candidate", "1")
    before[0]["candidate"] = "1"
    path = next(p for p in tmp_path.rglob("artifacts/model/tokenizer.json"))
    for path in tmp_path.rglob("artifacts/model/tokenizer.json"):
        path.write_bytes(path.read_bytes() + b" ")
    fails(EvidenceError, "version 1 of .* is not what was decided on")


def test_a_later_candidate_takes_the_place_and_an_older_one_does_not_come_back(
    case: Case, store: str, tmp_path: Path
) -> None:
    first = asked(case, store, tmp_path / "out1")
    second = asked(again(case, tmp_path / "later", 9.0), store, tmp_path / "out2")
    assert candidate(store) == "2"
    with pytest.raises(RegistryError, match="version 1 of .* is older than version 2, which is candidate already"):
        gate(case, store, tmp_path / "out1", promotion=ASKED)
    given(store, second)
    assert (champion(store), candidate(store)) == ("2", "2")
    Registry(store, config(store)).alias.move_to(
        Registry(store, config(store)).find(first), *champion_now(store), "by hand"
    )
    # which made the older one champion; the newer was not rolled back, so that it may be approved again
    assert given(store, second).promoted

    registry_of(store).set_registered_model_alias(NAME, "candidate", "1")
    with pytest.raises(RegistryError, match="version 1 of .* is older than version 2, which was promoted since"):
        given(store, first)
    assert champion(store) == "2"
    assert given(store, first, again=True).promoted
    assert tags(store, 1)["promoted_again"] == "read the report"


def champion_now(store: str) -> Any:
    return (Registry(store, config(store)).alias.champion(),)


def test_a_ledger_that_fails_says_that_the_alias_did_move(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = asked(case, store, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_text", broken)
        with pytest.raises(RegistryError, match="champion of .* did move, to version 1; only the ledger does not say so"):
            given(store, digest)
    assert champion(store) == "1"
    shelf = Registry(store, config(store))
    missing = shelf.ledger.read(shelf.alias.champion())[1]
    assert missing is not None
    assert (missing.version, missing.by) == ("1", "Ada"), "who approved is known from the version's tags"
    assert given(store, digest).promoted


def test_the_component_says_what_awaits_approval(case: Case, store: str, tmp_path: Path) -> None:
    verdict, figures = step.run_component(
        model=str(case.model),
        evidence={name: str(path) for name, path in case.evidence.items()},
        before_samples=str(case.before_samples),
        after_samples=str(case.after_samples),
        champion=None,
        policy="standard",
        registry_json=json.dumps({"tracking_uri": store}),
        promotion_json=json.dumps({"require_approval": True, "candidate_alias": "waiting"}),
        mlflow_run_id="",
        kfp_run_id="run-7",
        decision=str(tmp_path / "out"),
        report=str(tmp_path / "report.html"),
        summary=str(tmp_path / "summary.md"),
    )
    assert (verdict, figures["promoted"], figures["awaiting_approval"]) == ("awaiting approval", 0.0, 1.0)
    assert list(registry_of(store).get_registered_model(NAME).aliases) == ["waiting"]
    outcome = read_outcome(tmp_path / "out")
    told_first, *_, command = outcome_text(outcome)
    assert told_first == ("AWAITING APPROVAL: version 1 is waiting; champion of release-candidate stays at no version")
    assert command.startswith("approve     version 1 awaits approval: beear approve ")
    # the run's record names the alias, which nobody has to configure again
    assert given(store, outcome.decision.digest, folder=tmp_path / "out", promotion=PromotionConfig()).promoted


def test_one_alias_for_both_is_refused(case: Case, store: str, tmp_path: Path) -> None:
    same = PromotionConfig(require_approval=True, candidate_alias="champion")
    with pytest.raises(ConfigError, match="promotion.candidate_alias is 'champion', and so is registry.alias"):
        step.run(tmp_path, {}, policy="?", registry=config(store), out=tmp_path / "out", promotion=same)


def test_a_later_promotion_only_makes_a_candidate_where_approval_is_required(
    case: Case, store: str, tmp_path: Path
) -> None:
    with pytest.raises(RegistryError):
        gate(case, "http://127.0.0.1:9", tmp_path / "out")
    settings = tmp_path / "release.yaml"
    settings.write_text(f"registry: {{tracking_uri: '{store}'}}\npromotion: {{require_approval: true}}\n")
    shared = ["--config", str(settings)]
    done = CliRunner().invoke(app, ["promote", str(tmp_path / "out"), "--model", str(case.model), *shared])
    assert (done.exit_code, champion(store), candidate(store)) == (3, None, "1"), done.output
    digest = Decision.read(tmp_path / "out" / "decision.json").digest
    assert f"version 1 awaits approval: beear approve {tmp_path / 'out'} --decision {digest} --by NAME" in done.stdout
    with pytest.raises(EvidenceError, match="holds no decision with its policy"):
        given(store, digest)  # the run that it was registered in holds no records

    words = ["--decision", digest, "--by", "Ada", "--reason", "read it"]
    neither = CliRunner().invoke(app, ["approve", *words, *shared])
    assert "one of the two" in str(neither.exception)
    told_twice = CliRunner().invoke(app, ["approve", str(tmp_path / "out"), "--model-name", NAME, *words, *shared])
    assert "one of the two" in str(told_twice.exception)
    done = CliRunner().invoke(app, ["approve", str(tmp_path / "out"), *words, *shared])
    assert (done.exit_code, champion(store)) == (0, "1"), done.output
    assert "champion of release-candidate is version 1 (was not set)\napproved by Ada at 20" in done.stdout
    done = CliRunner().invoke(app, ["approve", str(tmp_path / "out"), *words, *shared, "--json"])
    assert ReleaseRecord.parse(done.stdout.encode()).promoted

    runs = ["--out", str(tmp_path / "store")]
    table = CliRunner().invoke(app, ["ledger", NAME, *runs])
    assert (table.exit_code, "approval" in table.stdout, "read it" in table.stdout) == (0, True, True)
    machine = json.loads(CliRunner().invoke(app, ["ledger", NAME, *runs, "--json"]).stdout)
    assert [e["event"] for e in machine["entries"]] == ["approval"]
    assert (machine["missing"], machine["head"][:7]) == (None, "sha256:")
    assert replay.replay(tmp_path / "out").digest == digest
