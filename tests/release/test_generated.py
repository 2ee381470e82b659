"""What is generated is committed as it is; what is compiled holds to the rules; nothing light loads anything heavy."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.kubeflow.package import steps_of
from tools import generate
from tools.reference import sections_of, table

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("beear_core", "components", "pipelines")
HEAVY = ("torch", "transformers", "accelerate", "datasets", "mlflow", "great_expectations", "matplotlib")


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return generate.generated()


@pytest.fixture(scope="module")
def pipeline(files: dict[str, str]) -> dict[str, Any]:
    document, *_ = yaml.safe_load_all(files["pipelines/release.yaml"])
    assert isinstance(document, dict)
    return document


class TestCommitted:
    def test_files_are_what_is_generated(self, capsys: pytest.CaptureFixture[str]) -> None:
        code = generate.main(["--check"])
        assert code == 0, capsys.readouterr().err

    def test_check_names_what_differs_and_writes_nothing(
        self,
        files: dict[str, str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(generate, "generated", lambda: files)
        assert generate.main([], tmp_path) == 0
        assert generate.main(["--check"], tmp_path) == 0
        changed = tmp_path / "docs/cli.md"
        changed.write_bytes(changed.read_bytes() + b"\n")
        (tmp_path / "docs/policy.md").unlink()
        capsys.readouterr()
        assert generate.main(["--check"], tmp_path) == 1
        assert re.findall("^differs: (.*)$", capsys.readouterr().err, re.MULTILINE) == ["docs/policy.md", "docs/cli.md"]
        assert not (tmp_path / "docs/policy.md").exists()

    def test_environment_and_terminal_change_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {
            "BEEAR_IMAGE": "registry.example/other:9",
            "BEEAR_SLIM_IMAGE": "registry.example/other:10",
            "COLUMNS": "47",
            "FORCE_COLOR": "1",
            "LC_ALL": "C",
            "TERM": "xterm-256color",
        }.items():
            monkeypatch.setenv(name, value)
        done = subprocess.run(
            [sys.executable, "-m", "tools.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def test_every_component_is_generated(self, files: dict[str, str]) -> None:
        found = {path.parent.name for path in (ROOT / "components").glob("*/component.py")}
        assert found == set(generate.COMPONENTS)
        assert {f"components/{name}/component.yaml" for name in found} <= files.keys()

    def test_every_port_and_key_is_described(self, files: dict[str, str]) -> None:
        pages = [text for path, text in files.items() if path.endswith(".md")]
        rows = [line for page in pages for line in page.splitlines() if line.startswith("| `")]
        assert len(rows) > 100
        assert [row for row in rows if row.rstrip().endswith("|  |")] == []

    def test_every_command_has_its_help(self, files: dict[str, str]) -> None:
        page = files["docs/cli.md"]
        listed = re.findall(r"^  ([a-z-]+)  ", page.split("## beear release")[0].split("Commands:")[1], re.MULTILINE)
        assert {"release", "sweep-layers", "replay", "rollback", "pipeline"} <= set(listed)
        for name in (*listed, "policy check", "pipeline compile"):
            assert f"\n## beear {name}\n" in page
        assert max(map(len, page.splitlines())) <= 100


class TestPages:
    def test_a_bar_in_a_cell_begins_no_other_cell(self) -> None:
        assert table(("a", "b"), [("x || y", "z")]).splitlines()[-1] == "| x \\|\\| y | z |"

    def test_docstring_is_read_by_name(self) -> None:
        doc = "One.\n\nTwo\nthree.\n\nArgs:\n    a, b: both ``x``\n        go on.\n    c: last.\n\nReturns:\n    it.\n"
        summary, described = sections_of(doc)
        assert summary == "One.\n\nTwo three."
        assert described == {"a": "both `x` go on.", "b": "both `x` go on.", "c": "last.", "Output": "it."}


class TestCompiled:
    def test_no_task_is_cached(self, pipeline: dict[str, Any]) -> None:
        tasks = steps_of(pipeline)
        assert len(tasks) == 10
        assert [name for name, task in tasks.items() if task["cachingOptions"].get("enableCache", False)] == []
        assert [name for name, task in tasks.items() if "cachingOptions" not in task] == []

    def test_everything_waits_for_the_preflight(self, pipeline: dict[str, Any]) -> None:
        steps = pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]
        assert "dependentTasks" not in steps["preflight"]
        assert [name for name, task in steps.items() if "preflight" not in task.get("dependentTasks", [])] == ["preflight"]

    def test_the_last_step_runs_whatever_happened_and_is_given_no_output(self, pipeline: dict[str, Any]) -> None:
        outside = pipeline["root"]["dag"]["tasks"]
        assert set(outside) == {"exit-handler-1", "release-status"}
        last = outside["release-status"]
        assert last["dependentTasks"] == ["exit-handler-1"]
        assert last["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
        given = last["inputs"]["parameters"]
        assert given.pop("status") == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}
        assert given.pop("kfp_run_id") == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
        assert {next(iter(source)) for source in given.values()} == {"componentInputParameter"}
        assert "artifacts" not in last["inputs"]

    def test_caching_would_be_seen(self) -> None:
        from kfp import dsl

        from components.data_validation.component import data_validation

        @dsl.pipeline(name="cached")
        def cached():  # KFP takes the text "None" of a postponed annotation for an artifact
            data_validation(config_json="{}")

        assert "enableCache: true" in generate._compiled(cached)

    def test_no_step_installs_anything(self, pipeline: dict[str, Any]) -> None:
        steps = pipeline["deploymentSpec"]["executors"]
        assert len(steps) == len(generate.COMPONENTS) + 1  # a step that is used twice is listed twice
        for step in steps.values():
            text = " ".join(step["container"]["command"]).lower()
            for installer in ("pip", "ensurepip", "uv ", "apt-get", "curl"):
                assert not re.search(rf"\b{installer}(?!eline)", text), installer

    def test_every_step_runs_in_an_image_of_this_release_and_what_needs_no_torch_in_the_slim_one(
        self, pipeline: dict[str, Any]
    ) -> None:
        from components.image import DEFAULT_IMAGE, DEFAULT_SLIM_IMAGE, NEED_TORCH

        executors = pipeline["deploymentSpec"]["executors"]
        images = {re.sub(r"^exec-|-\d+$", "", label): step["container"]["image"] for label, step in executors.items()}
        assert images == {name: DEFAULT_IMAGE if name in NEED_TORCH else DEFAULT_SLIM_IMAGE for name in images}
        assert images.keys() > NEED_TORCH
        assert not DEFAULT_IMAGE.endswith((":latest", ":0.0.0"))
        assert f"{DEFAULT_IMAGE}-slim" == DEFAULT_SLIM_IMAGE

    @pytest.mark.parametrize(
        ("named", "images"),
        [
            ({"BEEAR_IMAGE": "one"}, ["one", "one"]),
            ({"BEEAR_IMAGE": "one", "BEEAR_SLIM_IMAGE": "two"}, ["one", "two"]),
            ({"BEEAR_IMAGE": "", "BEEAR_SLIM_IMAGE": ""}, ["default", "default-slim"]),
        ],
    )
    def test_the_environment_may_name_others_and_a_single_one_is_for_all(
        self, named: dict[str, str], images: list[str]
    ) -> None:
        code = "from components import image as i; print(i.IMAGE, i.SLIM_IMAGE, i.DEFAULT_IMAGE)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ | named, capture_output=True, text=True, check=True
        )
        *found, default = done.stdout.split()
        assert [one.replace(default, "default") for one in found] == images


class TestLight:
    @pytest.mark.parametrize(
        "code",
        [
            "import beear_core, beear_core.config, beear_core.records, beear_core.policy",
            "import sys; sys.argv = ['beear', '--help']; from pipelines.cli import app; app(standalone_mode=False)",
            "from tools.generate import _compiled; from pipelines.release import release_pipeline as p; _compiled(p)",
        ],
        ids=["import beear_core", "beear --help", "compile"],
    )
    def test_nothing_heavy_is_loaded(self, code: str) -> None:
        assert loaded_by(code) == set()

    def test_what_is_heavy_would_be_seen(self) -> None:
        assert "torch" in loaded_by("import beear_core.mitigation.beear")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages are loaded after this code ran in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint('loaded:', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].removeprefix("loaded:").split())


class TestImports:
    def test_contracts_hold(self) -> None:
        done = lint_imports(ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "0 broken" in done.stdout

    def test_a_forbidden_import_breaks_them(self, tmp_path: Path) -> None:
        for package in PACKAGES:
            shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.jsonl"))
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        with (tmp_path / "beear_core/errors.py").open("a") as file:
            file.write("\nimport kfp\n")
        done = lint_imports(tmp_path)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "knows nothing of orchestration BROKEN" in done.stdout

    @pytest.mark.parametrize("name", generate.COMPONENTS)
    def test_a_face_imports_kfp_alone_and_a_step_never(self, name: str) -> None:
        folder = ROOT / "components" / name
        assert imported(folder / "component.py", nested=False) <= {"typing", "kfp", "components.image"}
        others = [path for path in folder.glob("*.py") if path.name != "component.py"]
        assert "step.py" in {path.name for path in others}
        for path in others:
            assert not {module for module in imported(path) if module.split(".")[0] == "kfp"}, path


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """The import contracts of the tree in ``folder``."""
    program = "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def imported(path: Path, *, nested: bool = True) -> set[str]:
    """The modules that a file imports, inside functions too unless ``nested`` is false."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found - {"__future__"}


class TestOperatingPage:
    """Messages that the page lists are messages of the code."""

    def test_messages_are_the_codes_own(self) -> None:
        page = (ROOT / "docs/operating.md").read_text(encoding="utf-8").split("## Messages")[1]
        listed = re.findall(r"^\| `([^|]+)` \|", page, re.MULTILINE)
        assert len(listed) >= 10
        known = messages()
        assert [text for text in listed if not any(fits(text, message) for message in known)] == []

    def test_a_made_up_message_fits_none(self) -> None:
        assert not any(fits("the moon is in the wrong place", message) for message in messages())


def fits(text: str, message: str) -> bool:
    """Whether the text stands in the message; ``…`` in the text and ``{}`` in the message are values."""
    return re.sub(r"…", "{}", text) in message


def messages() -> list[str]:
    """Every string of the code, values of f-strings as ``{}``."""
    found = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found
