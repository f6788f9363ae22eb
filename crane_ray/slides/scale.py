"""The scale of patches that another tool placed, where its files do not say it."""

from typing import Annotated, Any

from pydantic import Field, ValidationError

from crane_ray.config import Config, Flag, explain
from crane_ray.errors import ConfigError
from crane_ray.slides.patches import PatchSpec


class GivenScale(Config):
    """What the user says of patches that were placed elsewhere; nothing of it is ever guessed."""

    size_px: Annotated[int | None, Flag("--patch-size")] = Field(None, ge=8, le=8192)
    """Width and height of a patch in pixels, as the encoder got it; what the files say where not
    given."""
    mpp: Annotated[float | None, Flag("--mpp")] = Field(None, ge=0.05, le=20)
    """Resolution of a patch, um/px (TRIDENT's files say 20x, not um/px: give 0.5 if that is what
    it means for your scanners)."""
    level: Annotated[int | None, Flag("--patch-level")] = Field(None, ge=0)
    """Pyramid level of a patch, as in CLAM; what the files say where not given."""

    mpp_tolerance: float = Field(0.05, ge=0, le=0.5)
    """With --mpp: how far, relative to it, the patches of a slide may be off."""

    def spec(
        self,
        *,
        size_px: int | None = None,
        level: int | None = None,
        step_px: int | None = None,
        what: str = "",
    ) -> PatchSpec:
        """The patch spec of what is given here, completed by what the files say.

        Args:
            size_px: patch size in the files, if they say one.
            level: pyramid level in the files, if they say one.
            step_px: distance of neighbouring patches in patch pixels, if not the patch size.
            what: whose patches these are, for the message.

        Raises:
            ConfigError: the patch size or the scale is neither given nor in the files, or both
                an mpp and a level are given.
        """
        size = self.size_px or size_px
        fields: dict[str, Any] = {"size_px": size, "step_px": step_px if step_px != size else None}
        if self.mpp is not None or self.level is not None:
            fields |= {"mpp": self.mpp, "level": self.level}
            fields["mpp_tolerance"] = self.mpp_tolerance
        elif level is not None:
            fields |= {"mpp": None, "level": level}
        else:
            fields["mpp"] = None
        missing = [] if size else ["--patch-size (pixels)"]
        if fields["mpp"] is None and fields.get("level") is None:
            missing.append("--mpp (um/px) or --patch-level")
        if missing:
            raise ConfigError(
                f"{what}: the files do not say the {'size and scale' if not size else 'scale'} of "
                f"a patch, and it is not guessed; give {' and '.join(missing)}"
            )
        try:
            return PatchSpec(**fields)
        except ValidationError as error:
            raise ConfigError(explain(error, PatchSpec, f" ({what})")) from None
