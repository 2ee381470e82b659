"""A refusal is promoted only when each failed check is waived, and everything tells on whose word."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gate_evidence import Case
from gate_runs import NAME, champion, config, gate, registry_of, versions
from ledger_store import told
from signing_keys import key_pair
from typer.testing import CliRunner

from beear_core.config import PromotionConfig
from beear_core.errors import EvidenceError, RegistryError
from beear_core.records import ReleaseRecord
from components.mlflow_store.registry import Registry
from components.registry_gate import promotion
from components.registry_gate.approval import approve
from components.registry_gate.verification import verify
from pipelines.cli import app

pytestmark = pytest.mark.usefixtures("own_mlflow")
NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
LATER = datetime(2027, 4, 1, 12, tzinfo=UTC)


def waiver(digest: str, **changes: Any) -> dict[str, Any]:
    given = {"decision": digest, "check": "attack-plain", "owner": "Ada", "reason": "the judge errs here"}
    return {**given, "expires": "2027-03-31", **changes}


def test_a_waived_refusal_is_promoted_and_everything_tells_so(refused: Case, store: str, tmp_path: Path) -> None:
    out = tmp_path / "no"
    decision, release = gate(refused, store, out)
    assert (release.promoted, champion(store)) == (False, None)
    written = (out / "decision.json").read_bytes()
    for waivers, now in (([], NOW), ([waiver("sha256:0")], NOW), ([waiver(decision.digest)], LATER)):
        with pytest.raises(EvidenceError, match=r"is a refusal \(attack-plain\)"):
            promotion.promote(out, refused.model, config(store), waivers=waivers, now=now)
        assert (champion(store), told(tmp_path)) == (None, [])

    release = promotion.promote(out, refused.model, config(store), waivers=[waiver(decision.digest)], now=NOW)
    assert (release.promoted, champion(store), len(versions(store))) == (True, "1", 1)
    assert [w.owner for w in release.waivers] == ["Ada"]
    assert ReleaseRecord.read(out / "release.json") == release
    tags = versions(store)[0].tags
    assert tags["waived.attack-plain"] == "Ada: the judge errs here (until 2027-03-31)"
    assert (tags["verdict"], (out / "decision.json").read_bytes()) == ("refused", written), "the decision stays"
    first = told(tmp_path)[0]
    assert (first["event"], first["by"], first["waived"]) == ("waiver", "Ada", "attack-plain")
    assert [e["event"] for e in told(tmp_path)] == ["waiver", "promotion"]
    page = (out / "report.html").read_text()
    assert "PROMOTED<small>refused, and waived</small>" in page
    assert "waived by Ada until 2027-03-31. the judge errs here" in page


def test_what_is_not_the_decided_model_is_not_waived(refused: Case, store: str, tmp_path: Path) -> None:
    decision, _ = gate(refused, store, tmp_path / "no")
    for path in tmp_path.rglob("artifacts/model/tokenizer.json"):
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(EvidenceError, match=r"is not what was decided on \(changed: tokenizer.json; "):
        promotion.promote(tmp_path / "no", refused.model, config(store), waivers=[waiver(decision.digest)], now=NOW)
    assert champion(store) is None


def test_a_roll_back_does_not_go_to_a_waived_version(case: Case, refused: Case, store: str, tmp_path: Path) -> None:
    decision, _ = gate(refused, store, tmp_path / "no")
    promotion.promote(tmp_path / "no", refused.model, config(store), waivers=[waiver(decision.digest)], now=NOW)
    gate(case, store, tmp_path / "out")
    with pytest.raises(RegistryError, match="version 1 of .* did not pass its gate; it cannot become champion"):
        Registry(store, config(store)).rollback()
    assert champion(store) == "2"


def test_approved_with_waivers_unless_another_passed_since(case: Case, refused: Case, store: str, tmp_path: Path) -> None:
    asked = PromotionConfig(require_approval=True)
    decision, _ = gate(refused, store, tmp_path / "no", promotion=asked)
    said = {"by": "Bo", "reason": "needed by Friday", "now": NOW}
    gate(case, store, tmp_path / "out", promotion=asked)
    with pytest.raises(RegistryError, match="candidate of .* is version 2 and not version 1"):
        approve(decision.digest, config(store), asked, waivers=[waiver(decision.digest)], **said)
    registry_of(store).delete_registered_model_alias(NAME, "candidate")
    release = approve(decision.digest, config(store), asked, waivers=[waiver(decision.digest)], **said)
    assert (release.promoted, champion(store)) == (True, "1")
    assert [(e["event"], e["by"]) for e in told(tmp_path)] == [("waiver", "Ada"), ("approval", "Bo")]
    twice = approve(decision.digest, config(store), asked, **{**said, "now": LATER})
    assert (twice.promoted, len(told(tmp_path))) == (True, 2), "what was approved stays so when the waiver expires"


def test_the_command_says_what_was_waived_and_what_did_not_count(refused: Case, store: str, tmp_path: Path) -> None:
    decision, _ = gate(refused, store, tmp_path / "no")
    settings, waivers = tmp_path / "release.yaml", tmp_path / "waivers.json"
    settings.write_text(f"registry: {{tracking_uri: '{store}'}}\n")
    good = waiver(decision.digest, expires="2999-12-31")
    waivers.write_text(json.dumps([{**good, "owner": ""}]))
    call = ["promote", str(tmp_path / "no"), "--model", str(refused.model), "--config", str(settings)]
    failed = CliRunner().invoke(app, [*call, "--waivers", str(waivers)])
    assert "waiver 1 does not count: owner" in str(failed.exception)
    waivers.write_text(json.dumps([good, waiver("sha256:0")]))
    settings.write_text(settings.read_text() + f"promotion: {{waivers: {waivers}}}\n")
    done = CliRunner().invoke(app, call)  # the file is the configured one
    assert (done.exit_code, champion(store)) == (0, "1"), done.output
    assert all(part in done.stdout for part in ("Waived", "attack-plain", "Ada", "the judge errs here", "2999-12-31"))
    assert "warning: waiver 2 (attack-plain) does not count: it names the decision sha256:0" in done.stderr


def test_a_decision_against_another_champion_is_not_waived(case: Case, refused: Case, store: str, tmp_path: Path) -> None:
    from test_registry_gate_champion import NOT_WORSE

    policy = NOT_WORSE.replace("at_most: 0.9", "at_most: 0.2")
    decision, _ = gate(refused, store, tmp_path / "no", policy=policy)
    waivers = [waiver(decision.digest, check=c.check) for c in decision.failed_checks()]
    assert [w["check"] for w in waivers] == ["absolute"]
    gate(case, store, tmp_path / "out", policy=policy)
    with pytest.raises(RegistryError, match="is version 2 now, and the evidence is about none"):
        promotion.promote(tmp_path / "no", refused.model, config(store), "on purpose", waivers=waivers, now=NOW)
    assert champion(store) == "2"


@pytest.mark.parametrize("way", ["promote", "approve"])
def test_a_waived_refusal_is_signed_when_somebody_answers_for_it(
    refused: Case, store: str, tmp_path: Path, way: str
) -> None:
    """Not before: a signature on a refused model would look like a release."""
    settings = dataclasses.replace(config(store), signing=key_pair(tmp_path, "release"))
    decision, _ = gate(refused, store, tmp_path / "no", registry=settings)
    place = f"models:/{NAME}/1"
    assert (verify(place, settings).passed, verify(place, settings).signed) == (False, "no")
    waivers = [waiver(decision.digest)]
    if way == "promote":
        promotion.promote(tmp_path / "no", refused.model, settings, waivers=waivers, now=NOW)
    else:
        approve(decision.digest, settings, PromotionConfig(), by="Ada", reason="r", waivers=waivers, now=NOW)
    assert champion(store) == "1"
    found = verify(place, settings)
    assert (found.passed, found.signed, found.faults) == (True, "yes", ())
    (registered,) = tmp_path.rglob("artifacts/model/model.sig")
    copy = shutil.copytree(registered.parent, tmp_path / "copy")
    assert verify(str(copy), settings).passed
    (copy / "model.sig").unlink()
    assert verify(str(copy), settings).faults[-1].startswith("its decision is a refusal"), "and nobody answers for it"
