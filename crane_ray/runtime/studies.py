"""A study's cohort with its features, as the jobs share it. Imports no ray."""

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from crane_ray.cohort.cohort import Cohort, read_cohort, with_features
from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.cohort.tasks import TaskSet
from crane_ray.errors import ConfigError
from crane_ray.mil.bags import Bag, make_bags
from crane_ray.mil.pack import Pack, build_pack
from crane_ray.mil.pack_writing import Wanted
from crane_ray.mil.sources import FeatureSource, open_source
from crane_ray.runtime.study_jobs import BagsConfig


@dataclass(frozen=True)
class StudyData:
    """Labels and where their features lie; sent to every worker, which opens them there."""

    cohort: Cohort
    """The slides that have labels and features."""
    config: BagsConfig

    @property
    def bags(self) -> tuple[Bag, ...]:
        """All bags of the cohort."""
        return make_bags(self.cohort, self.config.level)

    def part(self, slide_ids: Iterable[str], pack: Pack) -> tuple[Bag, ...]:
        """The bags of a split's part, of slides whose features could be packed."""
        there = set(pack.slide_ids)
        kept = [slide_id for slide_id in slide_ids if slide_id in there]
        return make_bags(self.cohort.subset(kept), self.config.level)

    def pack(self, advance: Callable[[], object] = lambda: None) -> Pack:
        """The cohort's features on this node, packed unless they are.

        Raises:
            CraneError: see `build_pack`.
        """
        spelled = {name: _by_bare_id(source) for name, source in _sources(self.config).items()}
        wanted = []
        for slide_id, place in zip(self.cohort.slide_ids, _places(self), strict=True):
            source, names = spelled[place]
            if slide_id not in names:
                raise ConfigError(
                    f"features {source.root}: slide {slide_id} was there when the job began, and "
                    f"is not on {platform.node()}; every node must see the same folder"
                )
            wanted.append(Wanted(slide_id, source, names[slide_id]))
        return build_pack(wanted, self.config.pack, advance)


def load_labels(config: BagsConfig, task_set: TaskSet) -> Cohort:
    """The labelled slides of a study, whether they have features or not.

    Raises:
        ConfigError: the table or its labels cannot be used.
    """
    return read_cohort(config.labels, task_set, normalise=config.normalise_labels)


def attach_features(cohort: Cohort, config: BagsConfig) -> StudyData:
    """The slides of a cohort that have features, with findings about the others.

    Raises:
        ConfigError: no slide has any, or the table names a source that has no folder.
    """
    if not config.sources:
        assert config.features is not None
        return StudyData(with_features(cohort, open_source(config.features).slide_ids()), config)
    named = sorted(set(cohort.table["source"]))
    unknown = [name for name in named if name not in config.sources]
    if named == [""]:
        raise ConfigError(
            f"table {config.labels}: no column source, and bags.sources has a folder for each of "
            f"{', '.join(config.sources)}; add the column, or give --features FOLDER"
        )
    if unknown:
        raise ConfigError(
            f"table {config.labels}: source {', '.join(map(repr, unknown))} has no folder in "
            f"bags.sources, which knows {', '.join(config.sources)}; add it there"
        )
    there: list[str] = []
    for name in named:
        rows = cohort.table.loc[cohort.table["source"] == name, "slide_id"]
        _, names = _by_bare_id(open_source(config.sources[name]))
        there += [slide_id for slide_id in rows if slide_id in names]
    return StudyData(with_features(cohort, there), config)


def _sources(config: BagsConfig) -> dict[str, FeatureSource]:
    if config.features is not None:
        return {"": open_source(config.features)}
    return {name: open_source(path) for name, path in config.sources.items()}


def _places(study: StudyData) -> list[str]:
    if study.config.features is not None:
        return [""] * len(study.cohort.slide_ids)
    return [str(name) for name in study.cohort.table["source"]]


def _by_bare_id(source: FeatureSource) -> tuple[FeatureSource, dict[str, str]]:
    names: dict[str, str] = {}
    for name in source.slide_ids():
        bare = bare_slide_id(name)
        if bare in names:
            raise ConfigError(
                f"features {source.root}: {names[bare]} and {name} are the same slide but for "
                "their extension; keep one"
            )
        names[bare] = name
    return source, names


def study_provenance(study: StudyData) -> dict[str, object]:
    """What the features are, by source: where they lie, what made them, their identity."""
    return {
        name or "features": {**source.provenance(), "identity": source.identity()}
        for name, source in _sources(study.config).items()
    }
