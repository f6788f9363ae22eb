"""The files of an assessment, and whether there is one already. Imports no ray."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
import yaml

from crane_ray import storage
from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.findings import Finding
from crane_ray.config import Config
from crane_ray.errors import ConfigError, StorageError
from crane_ray.manifest import LeftOut, RunManifest
from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.runtime.model_recipes import Difference, recipe_differences, table_of
from crane_ray.runtime.panels import Networks

MANIFEST = "manifest.json"


@dataclass
class AssessmentSummary:
    """What came of an assessment."""

    folder: str
    table: pd.DataFrame
    findings: tuple[Finding, ...] = ()
    left_out: list[LeftOut] = field(default_factory=list)
    """Slides that failed somewhere or have no tissue, and why."""
    uncalibrated: list[str] = field(default_factory=list)
    """Tasks whose probabilities could not be calibrated."""


def require_free(job: AssessJob, members: Mapping[str, Networks]) -> None:
    """Refuses to write in place of an assessment that is there.

    The same command on slides goes on, or takes in slides that came later, and writes its own
    results anew.

    Raises:
        ConfigError: there is one, of another job or of other networks.
    """
    if job.overwrite or not storage.exists(storage.join(job.folder, "assessment.parquet")):
        return
    differing = _differences(job, members) if job.slides is not None else []
    if job.slides is not None and not differing:
        return
    told = f" of another job\n{table_of(differing, 'there', 'here')}\n" if differing else "; "
    raise ConfigError(
        f"--out {job.folder}: there is an assessment already{told}--overwrite writes in its place, "
        "another --out keeps it"
    )


def _differences(job: AssessJob, members: Mapping[str, Networks]) -> list[Difference]:
    """In what the assessment that is there is of another job; nothing if it is the same one's."""
    try:
        text = storage.read_bytes(storage.join(job.folder, "config.yaml"))
        before = AssessJob.model_validate(yaml.safe_load(text))
    except (ValueError, StorageError, yaml.YAMLError):
        return [("config.yaml", "cannot be read", job.fingerprint())]
    found = recipe_differences(_comparable(before), _comparable(job))
    manifest = storage.join(job.folder, MANIFEST)
    if found or not storage.exists(manifest):  # without one it was stopped while it wrote
        return found
    facts = json.loads(storage.read_bytes(manifest)).get("facts", {})
    there = facts.get("checkpoints", {})
    return [
        (
            f"networks of {own['path']}",
            there.get(name, {}).get(fold, {}).get("fingerprint", "-"),
            own["fingerprint"],
        )
        for name, folds in checkpoint_facts(members).items()
        for fold, own in folds.items()
        if there.get(name, {}).get(fold) != own
    ]


def _comparable(job: AssessJob) -> Config:
    """A job without what changes nothing in its results."""
    idle = AssessJob.model_fields
    names = (
        "overwrite",
        "maps",
        "pictures",
        "replace_stale",
        "pack",
        "staging",
        "actors",
        "cluster",
    )
    return job.model_copy(
        update={
            "encoder": job.encoder.model_copy(update={"batch_size": None}),
            **{name: idle[name].default for name in names},
        }
    )


def checkpoint_facts(members: Mapping[str, Networks]) -> dict[str, Any]:
    """Where the networks lie and what they are, as JSON holds it."""
    return {
        name: {
            str(fold): {"path": path, "fingerprint": own.fingerprints[fold]}
            for fold, path in own.paths.items()
        }
        for name, own in members.items()
    }


def write_assessment(
    job: AssessJob,
    manifest: RunManifest,
    summary: AssessmentSummary,
    *,
    members: Mapping[str, Networks],
    cohort: Cohort,
    facts: Mapping[str, Any],
) -> None:
    """Writes config.yaml, the tables, cases.csv, left_out.csv, and manifest.json last."""
    sink = io.BytesIO()
    summary.table.to_parquet(sink, index=False)
    case_of = dict(zip(cohort.slide_ids, cohort.case_ids, strict=True))
    left_out = pd.DataFrame(
        [
            (slide.slide_id, case_of.get(slide.slide_id, ""), slide.status, slide.reason)
            for slide in summary.left_out
        ],
        columns=["slide_id", "case_id", "status", "reason"],
    )
    files = {
        "config.yaml": job.to_yaml().encode(),
        "assessment.parquet": sink.getvalue(),
        "assessment.csv": _csv(summary.table),
        "cases.csv": _csv(cohort.table[["case_id", "slide_id"]]),
        "left_out.csv": _csv(left_out),
    }
    storage.remove_tree(storage.join(job.folder, MANIFEST))
    for name, content in files.items():
        storage.put_bytes(storage.join(job.folder, name), content)
    finished = manifest.finish(
        "failures" if summary.left_out else "done",
        counts={"cases": len(summary.table), "left_out": len(summary.left_out)},
        left_out=summary.left_out,
        facts={
            **facts,
            "checkpoints": checkpoint_facts(members),
            "findings": [asdict(finding) for finding in summary.findings],
        },
    )
    finished.save(storage.join(job.folder, MANIFEST))


def _csv(table: pd.DataFrame) -> bytes:
    text: str = table.to_csv(index=False, lineterminator="\n")
    return text.encode()
