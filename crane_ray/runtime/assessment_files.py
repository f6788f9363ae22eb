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
from crane_ray.errors import ConfigError
from crane_ray.manifest import LeftOut, RunManifest
from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.runtime.jobs import ClusterConfig
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
    if job.slides is not None and _is_same(job, members):
        return
    of = ", of another job or other networks" if job.slides is not None else ""
    raise ConfigError(
        f"--out {job.folder}: there is an assessment already{of}; --overwrite writes in its place, "
        "another --out keeps it"
    )


def _is_same(job: AssessJob, members: Mapping[str, Networks]) -> bool:
    path = storage.join(job.folder, "config.yaml")
    if not storage.exists(path):
        return False
    try:
        before = AssessJob.model_validate(yaml.safe_load(storage.read_bytes(path)))
    except (ValueError, yaml.YAMLError):
        return False
    if _comparable(before) != _comparable(job):
        return False
    manifest = storage.join(job.folder, MANIFEST)
    if not storage.exists(manifest):
        return True  # it was stopped while it wrote
    facts = json.loads(storage.read_bytes(manifest)).get("facts", {})
    return bool(facts.get("checkpoints") == checkpoint_facts(members))


def _comparable(job: AssessJob) -> Config:
    """A job without what changes nothing in its results."""
    return job.model_copy(
        update={"cluster": ClusterConfig(), "overwrite": False, "maps": True, "pictures": True}
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
