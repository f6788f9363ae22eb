"""What the viewer is told: whose slides, who may look, and how much memory it may take."""

from pydantic import Field

from crane_ray.config import Config
from crane_ray.slides.staging import StagingConfig


class ViewSettings(Config):
    """The settings of one viewer; they travel to every replica."""

    work: str
    """Workspace, an absolute path or URI."""
    assessment: str | None = None
    """Table of diagnoses a case (assessment.parquet); the workspace's own where not given."""
    reader: str = "auto"
    """Reader of slides, see `crane_ray.slides.opening.open_slide`."""
    staging: StagingConfig = StagingConfig()
    """How slides of object storage or slow mounts are brought here."""
    token: str | None = None
    """What browsers must bring; nobody is asked where not given."""
    hosts: tuple[str, ...] = ()
    """Host names, without ports, that requests may be addressed to; any where empty."""
    max_open_slides: int = Field(12, ge=1)
    """Slides held open at once."""
    tile_cache_mb: int = Field(192, ge=1)
    """Memory for encoded tiles, MB."""
    threads: int = Field(4, ge=1)
    """Threads that decode."""
