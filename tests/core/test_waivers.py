"""A waiver counts for one failed check of one decision, until it expires, or it is said why it does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import gate_records as g
import pytest
from report_cases import decide, release

from beear_core.errors import ConfigError, EvidenceError
from beear_core.policy import cleared, read_waivers, weigh
from beear_core.records import Decision, Waiver
from beear_core.report import render, verdict_of

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
PLAIN, NLL = "attack-plain", "nll-ratio"


def refused(**records: Any) -> Decision:
    """A decision in which two hard checks failed, and nothing else."""
    after = g.worse(g.worse(g.after(), "attack_success/plain", 0.5), "nll_ratio/ordinary", 0.5)
    return decide(**{"after": after, **records})[0]


DECISION = refused()


def entry(check: str = PLAIN, **changes: Any) -> dict[str, Any]:
    given = {"decision": DECISION.digest, "check": check, "owner": "Ada", "reason": "known", "expires": "2027-03-31"}
    return {key: value for key, value in {**given, **changes}.items() if value is not ...}


def fault(*entries: Any, now: datetime = NOW, decision: Decision = DECISION) -> str:
    """What is said of the only entry that does not count."""
    weighed = weigh(decision, entries, now)
    assert len(weighed.faults) == 1, weighed
    assert len(weighed.unwaived) == len(decision.failed_checks()) - len(weighed.used)
    return weighed.faults[0]


def test_the_decision_fails_where_it_is_meant_to() -> None:
    assert [c.check for c in DECISION.failed_checks()] == [PLAIN, NLL]


def test_a_waiver_of_each_failed_check_clears_a_refusal_and_leaves_it_a_refusal() -> None:
    before = DECISION.to_json()
    weighed = weigh(DECISION, [entry(), entry(NLL, owner="Bo")], NOW)
    assert [(w.check, w.owner) for w in cleared(DECISION, weighed)] == [(PLAIN, "Ada"), (NLL, "Bo")]
    assert (DECISION.to_json(), DECISION.passed) == (before, False)


@pytest.mark.parametrize("entries", [[], [entry()], [entry(NLL)], [entry(), entry(NLL, expires="2027-02-28")]])
def test_less_than_all_is_not_enough_and_the_error_says_what_is_left_and_why(entries: list[Any]) -> None:
    weighed = weigh(DECISION, entries, NOW)
    with pytest.raises(EvidenceError, match="is a refusal .*without a valid waiver of each check that failed") as caught:
        cleared(DECISION, weighed)
    assert all(fault in str(caught.value) for fault in weighed.faults)
    named = str(caught.value).split("(")[1].split(")")[0]
    assert set(named.split(", ")) == {PLAIN, NLL} - {w.check for w in weighed.used}


def test_a_pass_needs_none_and_uses_none() -> None:
    passed, _ = decide()
    weighed = weigh(passed, [entry(decision=passed.digest)], NOW)
    assert cleared(passed, weighed) == ()
    assert weighed.faults == (f"waiver 1 ({PLAIN}) does not count: that check did not fail",)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (entry(decision="sha256:0"), "it names the decision sha256:0, this one is sha256:"),
        (entry("no-such-check"), "the decision has no such check"),
        (entry(category="fraud"), "the decision has no such check"),
        (entry("token-kl"), "that check did not fail"),
        (entry(expires="2027-02-28"), "it expired (2027-02-28)"),
        (entry(expires=...), "expires"),
        (entry(owner=...), "owner"),
        (entry(reason="  "), "reason"),
        (entry(owner=""), "owner"),
        (entry(check=7), "check"),
        (entry(expires="soon"), "expires"),
        (entry(expires="2027-03-31T12:00:00"), "has no time zone"),
        (entry(expires=datetime(2027, 3, 31, 12)), "has no time zone"),
        (entry(approved="yes"), "approved: unknown key"),
        ("all of them", "it is no mapping"),
    ],
)  # fmt: skip
def test_what_does_not_count_and_what_is_said_of_it(made: Any, said: str) -> None:
    assert fault(made).startswith("waiver 1 ")
    assert said in fault(made)


def test_an_advisory_check_needs_no_waiver() -> None:
    loose = next(c for c in refused().checks if c.level == "advisory" and not c.passed)
    assert "advisory and decides nothing" in fault(entry(loose.check, category=loose.category))


def test_records_that_do_not_belong_together_are_never_waived() -> None:
    decision, _ = decide(validation=g.validation(passed=False))
    broken = [c for c in decision.failed_checks() if c.check.startswith("evidence/")]
    assert broken
    weighed = weigh(decision, [entry(c.check, decision=decision.digest) for c in decision.failed_checks()], NOW)
    assert weighed.used == ()
    assert all("can never be waived" in said for said in weighed.faults)
    with pytest.raises(EvidenceError, match="is a refusal"):
        cleared(decision, weighed)


def test_a_check_that_is_waived_twice_is_waived_by_nobody() -> None:
    weighed = weigh(DECISION, [entry(), entry(owner="Bo"), entry(NLL)], NOW)
    assert [w.check for w in weighed.used] == [NLL]
    assert [said.split(":")[0] for said in weighed.faults] == [f"waiver {i} ({PLAIN}) does not count" for i in (1, 2)]
    renewed = weigh(DECISION, [entry(expires="2027-02-01"), entry(), entry(NLL)], NOW)
    assert [w.check for w in renewed.used] == [PLAIN, NLL], "an expired one that was renewed is no second one"


@pytest.mark.parametrize(
    ("expires", "ends"),
    [
        ("2027-03-01", datetime(2027, 3, 2, tzinfo=UTC)),
        ("2027-03-01T18:00:00+02:00", datetime(2027, 3, 1, 16, tzinfo=UTC)),
        ("2027-03-01T18:00:00Z", datetime(2027, 3, 1, 18, tzinfo=UTC)),
    ],
)
def test_it_counts_until_it_ends_in_whatever_zone_the_clock_is(expires: str, ends: datetime) -> None:
    east = timezone(timedelta(hours=9))
    just_before = (ends - timedelta(seconds=1)).astimezone(east)
    assert [w.check for w in weigh(DECISION, [entry(expires=expires)], just_before).used] == [PLAIN]
    assert "it expired" in fault(entry(expires=expires), now=ends.astimezone(east))


class TestFile:
    @pytest.mark.parametrize("written", ["2027-03-31", "2027-03-31T12:00:00Z", '"2027-03-31"'])
    def test_yaml_and_json_say_the_same(self, tmp_path: Path, written: str) -> None:
        as_yaml, as_json = tmp_path / "w.yaml", tmp_path / "w.json"
        as_yaml.write_text(
            f"- decision: {DECISION.digest}\n  check: {PLAIN}\n  owner: Ada\n  reason: known\n  expires: {written}\n"
        )
        as_json.write_text(json.dumps([entry(expires=written.strip('"'))], indent="\t"))
        (one,), (other,) = (weigh(DECISION, read_waivers(path), NOW).used for path in (as_yaml, as_json))
        assert (one.ends, one.owner) == (other.ends, other.owner)

    @pytest.mark.parametrize(
        ("text", "said"),
        [("a: 1", "holds dict, no list of waivers"), ("", "holds NoneType"), ("[", "neither YAML nor JSON"),
         ("- {expires: 2027-13-01}", "neither YAML nor JSON")],
    )  # fmt: skip
    def test_what_is_no_list_is_refused(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "w.yaml").write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_waivers(tmp_path / "w.yaml")

    def test_what_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot read waivers from .*none.yaml: No such file"):
            read_waivers(tmp_path / "none.yaml")


class TestReport:
    def waived(self, *checks: str, decision: str = DECISION.digest) -> tuple[Waiver, ...]:
        return tuple(
            Waiver(decision=decision, check=c, owner="Ada <b>", reason="known", expires="2027-03-31") for c in checks
        )

    def page(self, waivers: tuple[Waiver, ...]) -> str:
        after = g.worse(g.worse(g.after(), "attack_success/plain", 0.5), "nll_ratio/ordinary", 0.5)
        decision, evidence = decide(after=after)
        return render(decision, evidence, (), release(decision, waivers=waivers))

    def test_the_page_tells_what_was_waived_and_that_it_is_a_refusal(self) -> None:
        html = self.page(self.waived(PLAIN, NLL))
        assert "PROMOTED<small>refused, and waived</small>" in html
        assert "<strong>attack-plain</strong>: waived by Ada &lt;b&gt; until 2027-03-31. known" in html

    @pytest.mark.parametrize("lacking", [(), (PLAIN,), (NLL,)])
    def test_a_promotion_without_all_waivers_is_no_report(self, lacking: tuple[str, ...]) -> None:
        with pytest.raises(EvidenceError, match="the release record says promoted, the decision says no"):
            self.page(self.waived(*lacking))
        with pytest.raises(EvidenceError, match="says promoted"):
            self.page(self.waived(PLAIN, NLL, decision="sha256:0"))

    def test_what_awaits_approval_is_its_own_verdict(self) -> None:
        decision, evidence = decide()
        waiting = release(decision, False, awaiting_approval=True, candidate_alias="candidate")
        assert verdict_of(decision, waiting) == ("AWAITING APPROVAL", "", "passed")
        assert "It is candidate, and becomes champion when somebody approves it." in render(decision, evidence, (), waiting)
