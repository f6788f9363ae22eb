"""A cohort with its features, of one folder or several."""

import shutil
from pathlib import Path

import pytest

from crane_ray.cohort.tasks import load_task_set
from crane_ray.errors import ConfigError
from crane_ray.runtime.studies import StudyData, attach_features, load_labels, study_provenance
from crane_ray.runtime.study_jobs import BagsConfig
from tests.unit.runtime.small_study import SmallStudy, make_study


@pytest.fixture
def study(tmp_path: Path) -> SmallStudy:
    """Slides S0 to S4 lie in one folder, the others in another."""
    made = make_study(tmp_path)
    other = tmp_path / "other" / "pt_files"
    other.mkdir(parents=True)
    for slide_id in made.slide_ids[5:]:
        shutil.move(made.features / "pt_files" / f"{slide_id}.pt", other)
    return made


def open_study(study: SmallStudy, **sources: str) -> StudyData:
    places = {"sources": sources} if sources else {"features": str(study.features)}
    packs = str(study.root / "packs")
    config = BagsConfig.model_validate(
        {"labels": str(study.labels), "pack": {"folder": packs}, **places}
    )
    return attach_features(load_labels(config, load_task_set(str(study.task))), config)


def add_sources(study: SmallStudy, **source_of: str) -> None:
    header, *rows = study.labels.read_text().splitlines()
    cells = [source_of.get(row.split(",")[1].removesuffix(".svs"), "second") for row in rows]
    told = [f"{row},{cell}" for row, cell in zip(rows, cells, strict=True)]
    study.labels.write_text("\n".join([f"{header},source", *told]) + "\n")


def test_features_of_several_sources(study: SmallStudy) -> None:
    add_sources(study, **dict.fromkeys(study.slide_ids[:5], "first"))
    data = open_study(study, first=str(study.features), second=str(study.root / "other"))
    assert data.cohort.slide_ids == study.slide_ids
    assert data.pack().slide_ids == study.slide_ids
    assert set(study_provenance(data)) == {"first", "second"}


def test_a_slide_in_another_sources_folder_has_no_features(study: SmallStudy) -> None:
    add_sources(study, **dict.fromkeys(study.slide_ids[:4], "first"))  # S4 says "second"
    data = open_study(study, first=str(study.features), second=str(study.root / "other"))
    assert set(study.slide_ids) - set(data.cohort.slide_ids) == {"S4"}
    (finding,) = (it for it in data.cohort.findings if it.kind == "without_features")
    assert finding.names == ("S4",)


def test_sources_that_do_not_fit_the_table(study: SmallStudy) -> None:
    with pytest.raises(ConfigError, match=r"no column source, and bags\.sources has a folder"):
        open_study(study, first=str(study.features))
    add_sources(study, S1="first", S2="third")
    with pytest.raises(ConfigError, match="source 'second', 'third' has no folder"):
        open_study(study, first=str(study.features))


def test_slides_without_features_are_told(study: SmallStudy) -> None:
    data = open_study(study)
    assert data.cohort.slide_ids == study.slide_ids[:5]
    assert "without_features" in {finding.kind for finding in data.cohort.findings}


def test_features_that_a_node_does_not_see_are_told_with_the_node(study: SmallStudy) -> None:
    data = open_study(study)
    (study.features / "pt_files" / "S3.pt").unlink()
    with pytest.raises(ConfigError, match=r"slide S3 was there .* every node must see"):
        data.pack()


def test_one_slide_under_two_names_is_refused(study: SmallStudy) -> None:
    files = study.features / "pt_files"
    shutil.copy(files / "S3.pt", files / "S3.svs.pt")
    with pytest.raises(ConfigError, match="S3"):
        open_study(study).pack()


def test_parts_are_of_slides_that_could_be_packed(study: SmallStudy) -> None:
    (study.features / "pt_files" / "S3.pt").write_bytes(b"")
    data = open_study(study)
    bags = data.part(["S1", "S3", "S4", "S9", "unknown"], data.pack())
    assert [bag.bag_id for bag in bags] == ["S1", "S4"]
