"""Small label tables for the tests."""

from collections.abc import Sequence
from pathlib import Path

from crane_ray.cohort.cohort import Cohort, read_cohort
from crane_ray.cohort.findings import Finding
from crane_ray.cohort.tasks import TaskSet, TaskSpec

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"

TWO = TaskSet(
    name="two",
    tasks=(
        TaskSpec(name="cell", column="label_cell", classes=("no_cell", "cell")),
        TaskSpec(name="amr", column="label_amr", classes=("no_amr", "amr"), ignore=("unsure",)),
    ),
)


def one_task(*classes: str) -> TaskSet:
    return TaskSet(
        name="one", tasks=(TaskSpec(name="kind", column="label", classes=classes or ("a", "b")),)
    )


def write(folder: Path, text: str, name: str = "labels.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def cohort_of(
    folder: Path, rows: Sequence[str], task_set: TaskSet | None = None, *, header: str = ""
) -> Cohort:
    """The cohort of rows ``case_id,slide_id,label``."""
    text = "\n".join([header or "case_id,slide_id,label", *rows]) + "\n"
    return read_cohort(write(folder, text), task_set or one_task())


def only(findings: Sequence[Finding], kind: str) -> Finding:
    found = [finding for finding in findings if finding.kind == kind]
    assert len(found) == 1, [finding.kind for finding in findings]
    return found[0]


def kinds(findings: Sequence[Finding]) -> set[str]:
    return {finding.kind for finding in findings}
