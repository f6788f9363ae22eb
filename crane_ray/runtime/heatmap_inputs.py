"""The networks and features of a heatmap job, found and held against each other. No ray here."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crane_ray import storage
from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.errors import ConfigError
from crane_ray.features.feature_files import list_feature_files
from crane_ray.features.store import FeatureStore
from crane_ray.maps.attending import common_heads
from crane_ray.maps.bags import NO_COORDINATES, BagPlace
from crane_ray.mil.checkpoints import Checkpoint, load_checkpoint
from crane_ray.mil.sources import FeatureSource, StoreSource, open_source
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.runtime.trained import find_checkpoints, require_features, trained_recipes
from crane_ray.slides.workspace import Workspace


@dataclass(frozen=True)
class Networks:
    """The networks of a job."""

    paths: Mapping[int, str]
    """By fold."""
    loaded: Mapping[int, Checkpoint]

    @property
    def first(self) -> Checkpoint:
        """Any of them: they have the same heads."""
        return next(iter(self.loaded.values()))

    @property
    def fingerprints(self) -> dict[int, str]:
        """Of each fold's network."""
        return {fold: one.fingerprint for fold, one in self.loaded.items()}


def load_networks(job: HeatmapJob) -> Networks:
    """The networks that a job names.

    Raises:
        ConfigError: there are none, or two of them have other heads.
    """
    paths = find_checkpoints(job.model, job.fold_numbers())
    loaded = {fold: load_checkpoint(path) for fold, path in paths.items()}
    common_heads(list(loaded.values()))
    return Networks(paths, loaded)


def choose_features(job: HeatmapJob, networks: Networks) -> FeatureSource:
    """The features that a job names, else those of the workspace that fit its networks.

    Raises:
        ConfigError: none or several do; all that there are are listed.
    """
    if job.features is not None:
        return open_source(job.features)
    folder = Workspace(job.work).features
    stores = [
        FeatureStore.open(root)
        for root in storage.list_folders(folder)
        if storage.exists(storage.join(root, "store.json"))
    ]
    trained = trained_recipes(networks.first)
    fitting = [one for one in stores if not trained or one.recipe.fingerprint() in trained]
    if len(fitting) == 1:
        return StoreSource(fitting[0].root)
    listed = "".join(
        f"\n  {one.root}: {one.recipe.encoder.name}, {one.recipe.encoder.dim} numbers a patch "
        f"(recipe {one.recipe.fingerprint()})"
        for one in stores
    )
    if not stores:
        raise ConfigError(
            f"--features: no feature store in {folder}; run crane-ray extract, or name a store or "
            "a folder with CLAM's h5_files"
        )
    if trained and not fitting:
        raise ConfigError(
            f"--model {job.model}: trained on features of recipe {', '.join(sorted(trained))}, "
            f"which no store of the workspace has; extract with the same encoder, weights and "
            f"patch scale, or name their store with --features. Stores there:{listed}"
        )
    raise ConfigError(
        f"--features: {len(fitting)} stores of the workspace may be the ones that {job.model} was "
        f"trained on; name one with --features. Stores there:{listed}"
    )


def require_fit(networks: Networks, source: FeatureSource) -> None:
    """Refuses features that networks were not made for.

    Raises:
        ConfigError: they have another recipe, or another length.
    """
    provenance = source.provenance()
    for fold, one in networks.loaded.items():
        path = networks.paths[fold]
        require_features(one, path, {source.root: provenance})
        if isinstance(source, StoreSource):
            encoder = FeatureStore.open(source.root).recipe.encoder
            if encoder.dim != one.dim:
                raise ConfigError(
                    f"--features {source.root}: {encoder.name} gives {encoder.dim} numbers a "
                    f"patch, the network {path} takes {one.dim}; give the features of the encoder "
                    "that it was trained with"
                )


def bag_places(source: FeatureSource) -> dict[str, BagPlace]:
    """Where the features of each slide lie, by slide_id without extension.

    Raises:
        ConfigError: two slides differ in their extension alone, or no file has coordinates.
        StoreError: the index cannot be read.
    """
    places: dict[str, BagPlace] = {}
    for place in _store_places(source) if isinstance(source, StoreSource) else _files(source):
        bare = bare_slide_id(place.name)
        if bare in places:
            raise ConfigError(
                f"features {source.root}: {places[bare].name} and {place.name} are the same slide "
                "but for their extension; keep one"
            )
        places[bare] = place
    return places


def _store_places(source: FeatureSource) -> Iterable[BagPlace]:
    for row in FeatureStore.open(source.root).index.rows():
        digest = hashlib.sha256(repr((row.coords_checksum, row.checksums)).encode())
        yield BagPlace(
            name=row.slide_id,
            store=source.root,
            num_patches=row.num_patches,
            identity=digest.hexdigest()[:16],
        )


def _files(source: FeatureSource) -> Iterable[BagPlace]:
    listed = list_feature_files(source.root)
    if not any(files.h5 for files in listed):
        raise ConfigError(f"--features {source.root}: {NO_COORDINATES}")
    for files in listed:
        if files.problem:
            raise ConfigError(f"features {source.root}: slide {files.slide_id}: {files.problem}")
        facts = storage.facts_of(files.h5 or files.pt)
        identity = f"{facts.size}-{facts.version}"
        yield BagPlace(name=files.slide_id, h5=files.h5, identity=identity)
