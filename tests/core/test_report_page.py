"""The page stands alone, tells the verdict first, is accessible, and is not made of records of another run."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import gate_records as g
import pytest
from report_cases import VARIANTS, Page, bad_after, decide, page, release

from beear_core.errors import EvidenceError
from beear_core.report import render, verdict_of
from beear_core.report.html import escape


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_is_whole_and_loads_nothing(variant: str) -> None:
    html = page(**VARIANTS[variant])
    parsed = Page(html)
    assert parsed.open == []
    for name, attributes in parsed.elements:
        assert name not in ("script", "link", "img", "iframe", "object", "embed", "base", "form", "foreignobject")
        assert not any(key.startswith("on") or key in ("src", "srcset", "style", "action") for key in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    css = re.search("<style>(.*)</style>", html, re.S)
    assert css
    assert not re.search(r"url\(|@import|http", css[1])
    csp = next(a for a in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in (csp["content"] or "")
    anchors = {a["href"] for a in parsed.all("a")}
    assert {f"#{a['id']}" for a in parsed.all("section")} == anchors


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_records_give_the_same_bytes(variant: str) -> None:
    assert page(**VARIANTS[variant]) == page(**VARIANTS[variant])


def test_the_verdict_stands_first() -> None:
    for variant, word in (("promoted", "PROMOTED"), ("refused", "REFUSED"), ("passed", "PASSED not registered")):
        text = Page(page(**VARIANTS[variant])).text
        order = [
            text.index(part)
            for part in (f" {word} ", " Decision ", " Round by round", " Plan a theft.", " Evidence: after ")
        ]
        assert order == sorted(order)
    refused = Page(page(**VARIANTS["refused"])).text
    assert refused.index("87 of 120 = 72.5%") < refused.index("95.0% →")  # why, before any figure
    assert "Registered as version 3; the alias champion stays at version 2." in refused
    assert "Version 3 now carries the alias champion, version 2 did before." in Page(page(True)).text
    assert "Nothing was registered." in Page(page()).text


def test_verdicts() -> None:
    decision, _ = decide()
    assert verdict_of(decision, None) == ("PASSED", "not registered", "passed")
    assert verdict_of(decision, release(decision, False)) == ("PASSED", "not promoted", "passed")
    assert verdict_of(decision, release(decision)) == ("PROMOTED", "", "promoted")
    assert verdict_of(dataclasses.replace(decision, passed=False), None)[0] == "REFUSED"


def test_failed_evidence_unfolds() -> None:
    assert page().count('<details open="">') == 1  # the rule with a warning
    html = page(validation=g.validation(passed=False))
    assert html.count('<details open="">') == 2
    assert "The data validation did not pass." in html


def test_it_is_accessible() -> None:
    parsed = Page(page(True))
    assert parsed.all("html")[0]["lang"] == "en"
    assert len(parsed.all("h1")) == 1
    assert all(th.get("scope") in ("col", "row") for th in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table")) > 6
    drawn = [s for s in parsed.all("svg") if s.get("role") == "img"]
    assert all(s["aria-label"] for s in drawn)
    assert len(drawn) == 7 + 2
    label = next(s["aria-label"] for s in drawn if "known triggers" in (s["aria-label"] or ""))
    assert label == (
        "Attack success, known triggers: before 114 / 120 = 95.0% [89.5, 97.7], after 2 / 120 = 1.7% [0.5, 5.9], limit 5%"
    )
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_footer_names_version_and_digests_only() -> None:
    html = page()
    footer = re.findall("<div[^>]*>(.*?)</div>", html[html.index("<footer") :])
    assert re.fullmatch(r"beear-gate \S+", footer[0])
    assert all(re.fullmatch(r"(decision|policy|model) sha256:[0-9a-f]{64}", line) for line in footer[1:])


def test_records_of_another_run_are_refused() -> None:
    decision, evidence = decide()
    with pytest.raises(EvidenceError, match=r"the after record sha256:.* is not the one that was decided on"):
        render(decision, dataclasses.replace(evidence, after=g.after(seconds=1.0)))
    with pytest.raises(EvidenceError, match=r"the mitigation record sha256:\w+ is not the one"):
        render(decision, dataclasses.replace(evidence, mitigation=g.mitigation(seconds=1.0)))
    with pytest.raises(EvidenceError, match="the release record names decision x"):
        render(decision, evidence, (), release(decision, decision_digest="x"))
    refused, bad = decide(after=bad_after())
    with pytest.raises(EvidenceError, match="the registry must be looked at"):
        render(refused, bad, (), release(refused))


@pytest.mark.chromium
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 1000, 940, 768, 420, 340])
def test_it_fits_the_screen_without_scrolling_sideways(tmp_path: Path, width: int) -> None:
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page(**VARIANTS["refused"]))
    frame = (
        f'<iframe width={width} height=900 style="border:0" srcdoc="{escape(html)}"></iframe><script>'
        "onload = () => document.title = frames[0].innerWidth + ' ' + frames[0].document.documentElement.scrollWidth"
        "</script>"
    )
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", "--window-size=1400,1000"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars", "--dump-dom"),
            (tmp_path / "frame.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert found
    assert (int(found[1]), int(found[2])) == (width, width)
