"""The study that the pages speak of, in small: slides, tables, and what other tools leave.

Pages name things that a reader has. Here are things of these names: `labels.csv`, `work`,
`results/cardiac-mtl_s1`, CLAM's and TRIDENT's folders.
"""

import csv
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import yaml

from crane_ray.features.store import FeatureStore
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.workspace import Workspace
from crane_ray.testing.cohorts import SyntheticCohort, SyntheticSlide, make_cohort
from tests.ray.helpers import ROOT

NUM_SLIDES, NUM_NEW = 16, 2
SIZE_PX = (1536, 1024)
SUBTYPES = ("CCRCC", "PRCC", "CHRCC")
STRATA = ("healthy", "quilty", "cell_only_low")
GRADE_STRATA = ("cell_only_low", "amr_only_high")
KIDNEY = {
    "name": "kidney",
    "tasks": [{"name": "subtype", "column": "subtype", "classes": list(SUBTYPES)}],
}

COMMANDS = (
    "patch --slides /data/slides --work work --preset bwh_biopsy --no-pictures",
    "extract --work work --encoder resnet50_trunc",
    "splits --labels labels.csv --task cardiac-mtl",
    "splits --labels labels.csv --task cardiac-grade",
    "train --labels labels.csv --task cardiac-mtl --splits splits/cardiac-mtl_100"
    " --features work/features/resnet50_trunc",
    "train --labels labels.csv --task cardiac-grade --splits splits/cardiac-grade_100"
    " --features work/features/resnet50_trunc",
    "splits --labels labels.csv --task kidney.yaml",
    "train --labels labels.csv --task kidney.yaml --splits splits/kidney_100"
    " --features work/features/resnet50_trunc",
    "train --labels labels.csv --task task_2_tumor_subtyping --model clam_sb --exp-code clam"
    " --splits splits/kidney_100 --features work/features/resnet50_trunc",
    "assess --features work/features/resnet50_trunc --cases labels.csv"
    " --model results/cardiac-mtl_s1 --out other",
    "export clam --store work/features/resnet50_trunc --to FEATURES_DIRECTORY",
)
"""What a reader of the later pages has done before."""


def make_slides(root: Path) -> SyntheticCohort:
    """Slides in ``data/slides``, two of them in ``data/new``, too."""
    cohort = make_cohort(root / "data", num_slides=NUM_SLIDES, size_px=SIZE_PX)
    (root / "data" / "new").mkdir(exist_ok=True)
    for slide in cohort.slides[-NUM_NEW:]:
        shutil.copy(slide.path, root / "data" / "new" / f"new_{slide.path.name}")
    return cohort


def write_tables(root: Path, cohort: SyntheticCohort) -> None:
    """Every table that a page names, with the columns that it speaks of."""
    cases = {case: n for n, case in enumerate(dict.fromkeys(s.case_id for s in cohort.slides))}
    rows = [_row(slide, cases[slide.case_id]) for slide in cohort.slides]
    _write(root / "labels.csv", rows)
    _write(root / "other.csv", rows)
    _write(root / "CardiacDummy_MTL.csv", [_with_spaces(row) for row in rows])
    graded = [row for row in rows if row["label_grade"]]
    _write(root / "CardiacDummy_Grade.csv", graded)
    by_stratum = [_stratum(row, STRATA, cases) for row in rows]
    for name in ("strata.csv", "CardiacDummy_MTLSplit.csv"):
        _write(root / name, by_stratum)
    by_grade = [_stratum(row, GRADE_STRATA, cases) for row in graded]
    _write(root / "CardiacDummy_GradeSplit.csv", by_grade)


def _row(slide: SyntheticSlide, case: int) -> dict[str, str]:
    diagnosis, subtype = slide.diagnosis, case % len(SUBTYPES)
    return {
        "case_id": slide.case_id,
        "slide_id": slide.slide_id,
        "label_cell": "cell" if diagnosis.cell else "no_cell",
        "label_amr": "amr" if diagnosis.amr else "no_amr",
        "label_quilty": "quilty" if diagnosis.quilty else "no_quilty",
        "label_grade": diagnosis.grade or "",
        "subtype": SUBTYPES[subtype],
        "oncotree_code": SUBTYPES[subtype],
        "cohort": "A",
        "site": "XYZ"[case // 4],
        "label": f"subtype_{subtype + 1}",
    }


def _with_spaces(row: dict[str, str]) -> dict[str, str]:
    """CRANE's spelling of its classes."""
    heads = ("label_cell", "label_amr", "label_quilty")
    return {**row, **{name: row[name].replace("_", " ") for name in heads}}


def _stratum(row: dict[str, str], names: tuple[str, ...], cases: dict[str, int]) -> dict[str, str]:
    label = names[cases[row["case_id"]] % len(names)]
    return {"case_id": row["case_id"], "slide_id": row["slide_id"], "label": label}


def _write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make_study(root: Path, run: Callable[[str], None]) -> None:
    """Workspace, features, networks, and other tools' folders, in the names of the pages.

    Args:
        root: an empty folder.
        run: runs a command of `COMMANDS` there.
    """
    write_tables(root, make_slides(root))
    (root / "kidney.yaml").write_text(yaml.safe_dump(KIDNEY))
    for line in COMMANDS:
        run(line)
    results = root / "results"
    shutil.copytree(results / "clam_s1", results / "EXP_CODE_s1")
    shutil.copytree(results / "cardiac-mtl_s1", results / "cardiac_output_s1")
    shutil.copy(results / "cardiac-mtl_s1" / "s_0_checkpoint.pt", root)
    shutil.copytree(root / "splits" / "kidney_100", root / "SPLITS")
    shutil.copytree(root / "work" / "features", root / "other" / "features")
    (root / "OTHER").symlink_to("other/features/resnet50_trunc")
    (root / "FEATURES").symlink_to("work/features/resnet50_trunc")
    (root / "DATA_DIRECTORY").symlink_to("data/slides")
    crane = root / "DATA_ROOT_DIR" / "features"
    shutil.copytree(root / "FEATURES_DIRECTORY" / "pt_files", crane)
    shutil.copytree(root / "work" / "patches", root / "RESULTS_DIRECTORY" / "patches")
    shutil.copytree(root / "work" / "contours", root / "edited")
    _write_trident(root / "JOB_DIR" / "20x_256px_0px_overlap", root / "work")
    _write_clam_heatmap(root)
    run("import heatmap --from clam_heatmap.yaml --work work --out heatmap.yaml")
    shutil.copytree(ROOT / "jobs", root / "jobs")
    _share(root, root / "shared")
    _share(root, root / "data")


def _share(root: Path, folder: Path) -> None:
    """A patched workspace, tables, splits and features where the nodes of a cluster see them."""
    work = folder / "work"
    shutil.copytree(root / "work", work, ignore=shutil.ignore_patterns("features"))
    shutil.copytree(root / "splits", folder / "splits")
    shutil.copytree(root / "FEATURES", folder / "features" / "uni_v1")
    shutil.copy(root / "labels.csv", folder)
    if not (folder / "slides").exists():
        shutil.copytree(root / "data" / "slides", folder / "slides")


def _write_trident(folder: Path, work: Path) -> None:
    """Coordinates and features in the files of TRIDENT."""
    workspace, store = (
        Workspace(str(work)),
        FeatureStore.open(str(work / "features/resnet50_trunc")),
    )
    for part in ("patches", "features_uni_v1"):
        (folder / part).mkdir(parents=True)
    for slide_id in store.slide_ids():
        row, slide = workspace.read_slides()[slide_id], store.read(slide_id)
        grid = read_patches(workspace.patches(slide_id), slide_id)
        about = {
            "patch_size": 256, "patch_size_level0": round(grid.geometry.footprint_xy[0]),
            "level0_magnification": 20, "target_magnification": 20, "overlap": 0,
            "level0_width": row.width_px, "level0_height": row.height_px, "name": slide_id,
        }  # fmt: skip
        with h5py.File(folder / "patches" / f"{slide_id}_patches.h5", "w") as file:
            file.create_dataset("coords", data=grid.xy).attrs.update(about)
        with h5py.File(folder / "features_uni_v1" / f"{slide_id}.h5", "w") as file:
            file["features"] = slide.features
            file.create_dataset("coords", data=slide.xy).attrs.update(about)


def _write_clam_heatmap(root: Path) -> None:
    """A heatmap config of CLAM's, in both names that pages have for it."""
    tree = {
        "data_arguments": {"data_dir": str(root / "data" / "slides"), "slide_ext": ".tif"},
        "patching_arguments": {"patch_size": 256, "overlap": 0.5, "patch_level": 0},
        "model_arguments": {
            "ckpt_path": str(root / "results" / "clam_s1" / "s_0_checkpoint.pt"),
            "model_type": "clam_sb",
        },
        "heatmap_arguments": {"vis_level": 0, "alpha": 0.4, "save_ext": "jpg"},
    }
    (root / "heatmaps" / "configs").mkdir(parents=True)
    for path in ("heatmaps/configs/config_template.yaml", "clam_heatmap.yaml"):
        (root / path).write_text(yaml.safe_dump(tree))
