"""The bill of materials of a model, for tools: CycloneDX 1.6 with files, data and software, and no clock in it.

The library knows no ``modelCard`` yet, so what was measured stands in the model's properties.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from beear_core.evaluation.figures import kind_of, sentence_figure
from beear_core.evidence import Evidence
from beear_core.records import EvaluationRecord, FileEntry, digest_json
from beear_core.uris import without_secrets
from components.passport.figures import each_figure

if TYPE_CHECKING:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component

BILL = "bom.cdx.json"
"""Name of the bill in a model's folder."""
_SHA256 = "sha256:"


def bill_of_materials(evidence: Evidence, files: Sequence[FileEntry], name: str) -> bytes:
    """Write the bill of a model: its files, the data it was cleaned and measured with, the software that did it.

    Args:
        evidence: what the release is decided on.
        files: of the model's folder, by their digests.
        name: of the model.

    Returns:
        CycloneDX 1.6 in JSON; the same bytes for the same evidence, files and name.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.output.json import JsonV1Dot6

    model = _model(evidence, name)
    parts = [*_files(files), *_data(evidence), *_software(evidence)]
    records = {key: record.digest for key, record in evidence.named().items()}
    seed = digest_json([name, records, sorted([file.path, file.size, file.digest] for file in files)])
    bill = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, seed), components=parts)
    bill.metadata.component = model
    # the hour of writing would make other bytes of the same evidence; CycloneDX does not ask for it
    bill.metadata.timestamp = None  # type: ignore[assignment]
    bill.register_dependency(model, parts)
    return JsonV1Dot6(bill).output_as_string(indent=2).encode() + b"\n"


def _model(evidence: Evidence, name: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    facts: dict[str, object] = {
        "digest": evidence.after.model_digest,
        "candidate:digest": evidence.before.model_digest,
        "chat_template:digest": evidence.after.chat_template_digest,
        "judge": evidence.after.judge,
    }
    if intake := evidence.intake:
        facts |= {
            "candidate:source": without_secrets(intake.uri),
            "architecture": intake.architecture,
            "parameters": intake.parameters,
            "layers": intake.layers,
            "hidden_size": intake.hidden_size,
        }
    if mitigation := evidence.mitigation:
        facts |= {
            "mitigation": mitigation.ending or mitigation.outcome,
            "mitigation:method": mitigation.config.get("method"),
            "mitigation:rounds": len(mitigation.rounds),
        }
    facts |= {f"record:{key}": record.digest for key, record in evidence.named().items()}
    facts |= dict(_figures("before", evidence.before)) | dict(_figures("after", evidence.after))
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        bom_ref="model",
        description="A language model as it was measured for a release decision",
        properties=_properties(facts),
    )


def _figures(when: str, record: EvaluationRecord) -> Iterator[tuple[str, str]]:
    """Give each figure of an evaluation in words."""
    for metric, trigger, estimate in each_figure(record):
        yield f"{when}:{metric}{':' if trigger else ''}{trigger}", sentence_figure(estimate, kind_of(metric))


def _properties(facts: Mapping[str, object]) -> list[Property]:
    from cyclonedx.model import Property

    return [Property(name=f"beear:{key}", value=str(value)) for key, value in facts.items() if value is not None]


def _files(files: Sequence[FileEntry]) -> Iterator[Component]:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    for file in files:
        yield Component(
            type=ComponentType.FILE,
            name=file.path,
            bom_ref=f"file:{file.path}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.digest.removeprefix(_SHA256))],
            properties=_properties({"size_bytes": file.size}),
        )


def _data(evidence: Evidence) -> Iterator[Component]:
    """List suites, anchors and where they came from; their digests are over rows, so they are no hashes of files."""
    from cyclonedx.model.component import Component, ComponentType

    validation, mitigation = evidence.validation, evidence.mitigation
    found: dict[str, dict[str, object]] = {
        f"suite {name}": {"digest": suite.digest, "prompts": suite.n} for name, suite in evidence.after.suites.items()
    }
    if evidence.after.suites_digest:
        found["suites"] = {"digest": evidence.after.suites_digest}
    if anchors := validation.anchors_digest if validation else mitigation.anchors_digest if mitigation else "":
        found["anchors"] = {"digest": anchors}
    for role, data in validation.roles.items() if validation else ():
        rows = {f"rows:{split}": count for split, count in data.rows.items()}
        found[f"data {role}"] = {"digest": data.digest, "source": without_secrets(data.source), **rows}
    for name, facts in found.items():
        yield Component(type=ComponentType.DATA, name=name, bom_ref=f"data:{name}", properties=_properties(facts))


def _software(evidence: Evidence) -> Iterator[Component]:
    """List what the model was measured with last: packages, this project, Python."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    environment = evidence.after.environment
    for name, version in {**environment.versions, "beear-gate": environment.code_version}.items():
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            bom_ref=f"package:{name}",
            purl=PackageURL("pypi", name=name, version=version),
        )
    yield Component(type=ComponentType.PLATFORM, name="Python", version=environment.python, bom_ref="python")
