"""The public face: the example that README and docstring show runs as it stands, and loads nothing before it must."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import toy_backdoor
from toy_release import MITIGATION

import beear_core
from beear_core import config

ROOT = Path(__file__).parents[2]


def example() -> str:
    found = re.search(r"::\n\n(    .*?)\n\n(?! )", beear_core.__doc__ or "", re.DOTALL)
    assert found
    return textwrap.dedent(found[1]) + "\n"


def test_readme_and_docstring_show_the_same() -> None:
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example() in shown


def test_it_runs_as_it_stands(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verbatim, but for defaults that suit a tiny model and a minute."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, "model")
    toy_backdoor.write_sets(Path("data"), 30)
    small = {"rounds": 1, "inner_steps": 1, "outer_steps": 1, "anchors": 20, "performance_anchors": 20, "held_back": 8}
    full = config.MitigationConfig
    changed = {**MITIGATION, **small, "held_back_ordinary": 8, "max_nll_ratio": 99.0, "max_refusal_increase": 1.0}
    monkeypatch.setattr(config, "MitigationConfig", lambda: full(**changed, max_borderline_increase=1.0))
    exec(compile(example(), "README.md", "exec"), {})
    told = capsys.readouterr().out
    assert "REFUSED" in told
    assert "There is no validation record" in told
    assert (tmp_path / "cleaned" / "model.safetensors").is_file()


def test_every_name_is_there_and_no_other() -> None:
    for name in beear_core.__all__:
        assert getattr(beear_core, name) is not None
    with pytest.raises(AttributeError, match="module 'beear_core' has no attribute 'clean'"):
        _ = beear_core.clean  # type: ignore[attr-defined]


def test_names_load_torch_only_where_they_need_it() -> None:
    code = (
        "import sys; from beear_core import Evidence, GatePolicy, decide, explain; assert 'torch' not in sys.modules\n"
        "from beear_core import load; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
