"""Which slides there are features of."""

from crane_ray import storage
from crane_ray.errors import ConfigError


def feature_slide_ids(place: str) -> list[str]:
    """The slides of a feature store, or of a folder of CLAM's or TRIDENT's files, sorted.

    Args:
        place: the store, or a folder of .pt or .h5 files (or with h5_files/ or pt_files/).

    Raises:
        ConfigError: there are no features.
        StoreError: the store cannot be used.
        StorageError: the storage fails.
    """
    # torch and h5py take seconds to load, and tables alone need neither
    from crane_ray.features.feature_files import list_feature_files
    from crane_ray.features.store import FeatureStore

    if storage.exists(storage.join(place, "store.json")):
        return FeatureStore.open(place).slide_ids()
    try:
        return [files.slide_id for files in list_feature_files(place)]
    except ConfigError as error:
        raise ConfigError(
            f"features {place}: neither a feature store (no store.json) nor a folder of feature "
            "files (.h5, .pt, h5_files/, pt_files/); give WORK/features/ENCODER, or CLAM's folder"
        ) from error
