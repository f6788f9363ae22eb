"""The report of a run, written into its folder, with pictures of its errors where there can be."""

import logging
from collections.abc import Mapping
from typing import Any

from crane_ray import storage
from crane_ray.errors import ConfigError, CraneError
from crane_ray.maps.folder import MapsFolder
from crane_ray.report.error_pictures import Places, draw_errors
from crane_ray.report.error_scores import MapScores, ScoreSource, StoreScores
from crane_ray.report.mistakes import mistakes_of
from crane_ray.report.mistakes_section import Pictures
from crane_ray.report.page import report_page
from crane_ray.report.reading import read_run
from crane_ray.report.results import RunResults
from crane_ray.slides.workspace import Workspace

log = logging.getLogger(__name__)

NAME = "report.html"


class NoPicturesError(CraneError):
    """Why a report has no pictures of errors at all."""


def write_report(
    run: str, *, out: str | None = None, work: str | None = None, maps: str | None = None
) -> str:
    """Makes the page of a run from its files; the path of what was written.

    Args:
        run: folder of a training or of an evaluation.
        out: where to write; report.html in the run's folder where not given.
        work: workspace that says where slides are; the one that the features lie in where not
            given. Slides of object storage are fetched only if it is given.
        maps: folder of maps whose attention is shown in place of that of the erring network.

    Raises:
        ConfigError: the folder holds no run, ``work`` or ``maps`` is none, or the maps are of
            other networks.
        StoreError: one of its files cannot be read.
        StorageError: the page cannot be written.
    """
    results = read_run(run)
    if maps is not None:
        _require_own_maps(results, maps)
    if work is not None and not storage.exists(Workspace(work).slides_table):
        raise ConfigError(
            f"--work {work}: no slides.parquet there; give the workspace that the slides were "
            "patched in (crane-ray patch --work)"
        )
    why_none = ""
    try:
        pictures = error_pictures(results, work=work, maps=maps)
    except Exception as error:  # whatever it is, the page is more than its pictures
        if not isinstance(error, CraneError):
            log.warning("no pictures of the errors of %s", run, exc_info=True)
        pictures, why_none = {}, str(error)
    page = report_page(results, pictures=pictures, why_none=why_none)
    path = out or storage.join(run, NAME)
    storage.put_bytes(path, page.encode())
    return path


def _require_own_maps(results: RunResults, maps: str) -> None:
    """Refuses maps that other networks made than those that erred."""
    made_by = {print_ for print_ in MapsFolder(maps).read_header().checkpoints.values() if print_}
    own = {print_ for print_ in (results.checkpoints or {}).values() if print_}
    if made_by and own and not made_by & own:
        raise ConfigError(
            f"--maps {maps}: made by other networks ({', '.join(sorted(made_by))}) than those of "
            f"{results.folder} ({', '.join(sorted(own))}); give the maps of this run, or none"
        )


def error_pictures(results: RunResults, *, work: str | None, maps: str | None) -> Pictures:
    """Pictures of the most confident errors of all tasks.

    Raises:
        NoPicturesError: there can be none, and why.
        StoreError: the table of slides cannot be read.
    """
    tasks = [results.of_task(place) for place in range(len(results.tasks))]
    errors = [mistakes_of(task) for task in tasks if task is not None]
    if not any(errors):
        return {}
    if not any(error.slide_id for one in errors for error in one):
        raise NoPicturesError("bags are cases, and maps are of single slides.")
    source: ScoreSource
    if maps is not None:
        source = MapScores(MapsFolder(maps))
        root = work or _above(maps, 2)
    else:
        store = _store(results)
        source = StoreScores(store, _checkpoints(results))
        root = work or _above(store, 2)
    workspace = Workspace(root)
    rows = workspace.read_slides()
    if not rows:
        raise NoPicturesError(
            f"{workspace.slides_table} is not there, which says where slides are; give "
            "crane-ray report the workspace with --work."
        )
    return draw_errors(errors, source, Places(workspace, rows, fetch=work is not None))


def _above(path: str, levels: int) -> str:
    for _ in range(levels):
        path = path.rstrip("/").rpartition("/")[0]
    return path


def _store(results: RunResults) -> str:
    """The run's feature store."""
    bags: Mapping[str, Any] = (results.config or {}).get("bags") or {}
    roots = (
        [bags["features"]] if bags.get("features") else list((bags.get("sources") or {}).values())
    )
    stores = [root for root in roots if storage.exists(storage.join(root, "store.json"))]
    if len(stores) == 1:
        return str(stores[0])
    if stores:
        raise NoPicturesError("the run's features lie in several stores; give --maps.")
    where = ", ".join(map(str, roots)) or "unknown"
    raise NoPicturesError(
        f"the run's features ({where}) are no feature store, or are not there any more; "
        "crane-ray import features makes one of CLAM's files."
    )


def _checkpoints(results: RunResults) -> dict[int, str]:
    """Where the network of each fold lies."""
    judged = results.facts.get("checkpoints")
    if judged:
        return {int(fold): str(facts.get("path", "")) for fold, facts in judged.items()}
    return {
        course.fold: storage.join(results.folder, f"s_{course.fold}_checkpoint.safetensors")
        for course in results.courses
    }
