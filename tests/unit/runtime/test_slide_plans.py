"""What an assessment of slides will do: the model's recipe, whose slides, what it refuses."""

from pathlib import Path
from typing import Any

import pytest

from crane_ray import storage
from crane_ray.errors import ConfigError, RecipeMismatchError
from crane_ray.features.store import FeatureStore
from crane_ray.maps.folder import MapsFolder, MapsHeader
from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.runtime.jobs import PatchJob
from crane_ray.runtime.slide_plans import SlidePlan, plan_slides
from crane_ray.slides.workspace import SlideRow, Workspace
from tests.unit.runtime.small_models import GRADE, job_of, make_model, make_recipe, make_slides


def kinds(plan: SlidePlan) -> dict[str, str]:
    return {finding.kind: finding.severity for finding in plan.findings}


def test_patches_and_encoder_are_those_of_the_model_without_a_word_of_the_user(
    tmp_path: Path,
) -> None:
    recipe = make_recipe(seed=7, size_px=224, mpp=0.25, step_px=112)
    model = make_model(tmp_path / "run", recipe)
    slides = make_slides(tmp_path / "slides")
    plan = plan_slides(job_of(model, slides, tmp_path / "work", encoder__batch_size=5))
    assert plan.patching.patch == recipe.patch
    encoder = plan.extraction.encoder
    assert (encoder.name, encoder.weights, encoder.seed) == ("resnet50_trunc", "random", 7)
    assert (encoder.precision, encoder.compile, encoder.batch_size) == ("fp32", False, 5)
    assert plan.extraction.dtype == "float32"
    assert plan.store == str(tmp_path / "work" / "features" / "resnet50_trunc")
    assert not (tmp_path / "work").exists(), "nothing is done yet"


@pytest.mark.parametrize("level", [0, 1])
def test_a_model_of_a_pyramid_level_is_given_that_level(tmp_path: Path, level: int) -> None:
    model = make_model(tmp_path / "run", make_recipe(level=level))
    plan = plan_slides(job_of(model, make_slides(tmp_path / "slides"), tmp_path / "work"))
    assert (plan.patching.patch.level, plan.patching.patch.mpp) == (level, None)


def test_what_is_asked_for_may_be_what_the_model_has(tmp_path: Path) -> None:
    model = make_model(tmp_path / "run", make_recipe())
    job = job_of(
        model, make_slides(tmp_path / "slides"), tmp_path / "work",
        encoder__name="resnet50_trunc", encoder__weights="random", patch__mpp=0.5,
        patch__size_px=256, encoder__input_size=224,
    )  # fmt: skip
    assert plan_slides(job).patching.patch.size_px == 256


def test_whose_a_slide_is_stands_in_the_table_else_it_is_a_case_of_its_own(tmp_path: Path) -> None:
    model = make_model(tmp_path / "run", make_recipe())
    slides = make_slides(tmp_path / "slides", "S1.tif", "S2.tif", "S3.tif")
    folder = plan_slides(job_of(model, slides, tmp_path / "work"))
    assert folder.cohort.case_ids == ("S1", "S2", "S3")
    (told,) = [finding for finding in folder.findings if finding.kind == "own_cases"]
    assert "each slide is a case of its own" in told.message
    table = tmp_path / "slides.csv"
    table.write_text("uri,case_id\nslides/S1.tif,P1\nslides/S2.tif,P1\nslides/S3.tif,\n")
    plan = plan_slides(job_of(model, table, tmp_path / "work"))
    assert plan.cohort.case_slides() == {"P1": ("S1", "S2"), "S3": ("S3",)}
    (told,) = [finding for finding in plan.findings if finding.kind == "own_cases"]
    assert told.names == ("S3",)


def test_two_models_of_different_features_are_refused_with_both(tmp_path: Path) -> None:
    model = make_model(tmp_path / "run", make_recipe())
    grade = make_model(tmp_path / "grade", make_recipe(seed=3, mpp=1.0), tasks=(GRADE,))
    slides = make_slides(tmp_path / "slides")
    job = job_of(model, slides, tmp_path / "work", grade_model=str(grade), graded_findings=["amr"])
    with pytest.raises(ConfigError) as told:
        plan_slides(job)
    assert "patch.mpp: --model 0.5, --grade-model 1.0" in str(told.value)
    assert "encoder.weights_sha256: --model " in str(told.value)
    same = make_model(tmp_path / "same", make_recipe(), tasks=(GRADE,))
    both = plan_slides(job.model_copy(update={"grade_model": str(same)}))
    assert list(both.panel.members) == ["assessment", "grade"]


def test_a_published_checkpoint_needs_encoder_and_scale_and_is_told_to_be_one(
    tmp_path: Path,
) -> None:
    model = make_model(tmp_path / "run", None)
    slides = make_slides(tmp_path / "slides")
    work = tmp_path / "work"
    with pytest.raises(ConfigError, match=r"the encoder \(--encoder NAME\) and the scale of"):
        plan_slides(job_of(model, slides, work))
    named = {"encoder__name": "resnet50_trunc", "encoder__weights": "random"}
    with pytest.raises(ConfigError, match=r"say what they were: the scale of patches"):
        plan_slides(job_of(model, slides, work, **named))
    plan = plan_slides(job_of(model, slides, work, patch__level=0, **named))
    assert kinds(plan)["recipe_not_recorded"] == "warning"
    assert (plan.patching.patch.level, plan.patching.patch.size_px) == (0, 256)
    short = make_model(tmp_path / "short", None, dim=512)
    with pytest.raises(ConfigError, match=r"makes vectors of 1024 numbers, .* takes 512"):
        plan_slides(job_of(short, slides, work, patch__level=0, **named))


def test_of_two_models_one_may_say_what_the_other_does_not(tmp_path: Path) -> None:
    model = make_model(tmp_path / "run", None)
    grade = make_model(tmp_path / "grade", make_recipe(mpp=0.25), tasks=(GRADE,))
    slides = make_slides(tmp_path / "slides")
    settings = {"grade_model": str(grade), "graded_findings": ["task1"]}
    plan = plan_slides(job_of(model, slides, tmp_path / "work", **settings))
    assert plan.patching.patch.mpp == 0.25
    (told,) = [finding for finding in plan.findings if finding.kind == "recipe_not_recorded"]
    assert told.names == (str(model),)


def test_a_workspace_with_other_patches_or_slides_or_features_is_refused(tmp_path: Path) -> None:
    recipe = make_recipe()
    model, slides = make_model(tmp_path / "run", recipe), make_slides(tmp_path / "slides")
    work = tmp_path / "work"
    job = job_of(model, slides, work)
    workspace, uri = Workspace(str(work)), str(slides / "S1.tif")
    facts: dict[str, Any] = {"status": "ok", "num_patches": 9}
    other = make_recipe(mpp=1.0)
    row = SlideRow("S1", uri, spec_fingerprint=other.patch.fingerprint(), **facts)
    workspace.write_slides([row])
    with pytest.raises(
        RecipeMismatchError, match=r"slide S1 has .* needs patches of 256 px at 0\.5"
    ):
        plan_slides(job)
    row = SlideRow("S1", "/old/S1.tif", spec_fingerprint=recipe.patch.fingerprint(), **facts)
    workspace.write_slides([row])
    with pytest.raises(ConfigError, match=r"S1 there is /old/S1\.tif, the one of --slides is"):
        plan_slides(job)
    plan_slides(job.model_copy(update={"replace_stale": True}))
    workspace.write_slides([SlideRow("S1", uri, spec_fingerprint=row.spec_fingerprint, **facts)])
    plan_slides(job)
    root = str(work / "features" / "resnet50_trunc")
    FeatureStore.open_or_create(root, make_recipe(seed=4))
    with pytest.raises(RecipeMismatchError) as told:
        plan_slides(job)
    assert "encoder.weights_sha256: model " in str(told.value)
    assert "encoder.weights: " not in str(told.value), "where weights lay changes no feature"


def test_maps_of_other_networks_are_not_written_over(tmp_path: Path) -> None:
    model, slides = make_model(tmp_path / "run", make_recipe()), make_slides(tmp_path / "slides")
    work = tmp_path / "work"
    header = MapsHeader(
        model="another", checkpoints={"0": "f" * 16}, tasks=(), heads=("cell",), features="",
        recipe_fingerprint="",
    )  # fmt: skip
    MapsFolder(str(work / "heatmaps" / "run")).write_header(header)
    job = job_of(model, slides, work)
    with pytest.raises(ConfigError, match=r"heatmaps/run are of other networks .*--no-maps"):
        plan_slides(job)
    plan_slides(job.model_copy(update={"maps": False}))


def test_tissue_is_found_as_before_else_as_on_the_models_own_slides(tmp_path: Path) -> None:
    trained, work = tmp_path / "trained", tmp_path / "work"
    root = str(trained / "features" / "resnet50_trunc")
    model = make_model(tmp_path / "run", make_recipe(), root=root)
    slides = make_slides(tmp_path / "slides")
    plan = plan_slides(job_of(model, slides, work))
    assert plan.patching.tissue.preset == "default"
    note(trained, "tcga")
    plan = plan_slides(job_of(model, slides, work))
    assert plan.patching.tissue.preset == "tcga"
    assert plan.reuse
    assert "other_tissue" not in kinds(plan)
    note(work, "bwh_biopsy")
    plan = plan_slides(job_of(model, slides, work))
    assert plan.patching.tissue.preset == "bwh_biopsy"
    assert kinds(plan)["other_tissue"] == "warning"
    plan = plan_slides(job_of(model, slides, work, tissue__preset="tcga"))
    assert plan.patching.tissue.preset == "tcga"
    assert not plan.reuse
    assert not kinds(plan).keys() & {"tissue", "other_tissue"}


def note(work: Path, preset: str) -> None:
    """A patching of a workspace is told by its config."""
    settings = [("slides.source", "/old"), ("work", str(work)), ("tissue.preset", preset)]
    job = PatchJob.load(overrides=settings)
    storage.put_bytes(Workspace(str(work)).config("patch"), job.to_yaml().encode())


def test_a_model_of_several_recipes_or_of_imported_features_is_refused(tmp_path: Path) -> None:
    slides = make_slides(tmp_path / "slides")
    model = make_model(tmp_path / "run", make_recipe(), folds=2)
    make_model(model, make_recipe(mpp=1.0), folds=1)
    with pytest.raises(ConfigError, match=r"trained on features of 2 recipes .* 1 um/px"):
        plan_slides(job_of(model, slides, tmp_path / "work"))
    recipe = make_recipe()
    unknown = recipe.encoder.model_copy(update={"weights_sha256": "imported"})
    imported = make_model(tmp_path / "old", recipe.model_copy(update={"encoder": unknown}))
    with pytest.raises(ConfigError, match="trained on imported features"):
        plan_slides(job_of(imported, slides, tmp_path / "work"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "give --slides WHERE and --work FOLDER .* or --features FOLDER and --cases TABLE"),
        ({"features": "f"}, "give --slides WHERE"),
        ({"slides": {"source": "s"}}, "--slides needs --work"),
        ({"slides": {"source": "s"}, "work": "w", "cases": "c"}, "--slides and --cases are two"),
        ({"features": "f", "cases": "c", "work": "w"}, "--work: of no effect with --features"),
        ({"features": "f", "cases": "c", "patch": {"mpp": 1}}, "patch.mpp: of no effect"),
        (
            {"slides": {"source": "s"}, "work": "w", "patch": {"mpp": 1, "level": 0}},
            "--mpp 1 and --patch-level 0 are two scales",
        ),
    ],
)
def test_the_two_ways_are_not_mixed(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        AssessJob.model_validate({"model": "m", **settings})


def test_results_go_into_the_workspace_unless_another_folder_is_named() -> None:
    slides = {"model": "m", "slides": {"source": "s"}, "work": "/w"}
    assert AssessJob.model_validate(slides).folder == "/w/assessment"
    assert AssessJob.model_validate({**slides, "out": "/o"}).folder == "/o"
    features = {"model": "m", "cases": "c", "features": "f"}
    assert AssessJob.model_validate(features).folder == storage.absolute("assessment")
