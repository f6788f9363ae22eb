"""Params and objectives of a search in few words, the same on a page and on a screen."""

from collections.abc import Iterable, Sequence

from crane_ray.pages.wording import number_text


def short_names(paths: Sequence[str], *, taken: Iterable[str] = ()) -> dict[str, str]:
    """The shortest ends of dotted paths that are no other's, nor taken; else the whole path.

    Ends have two parts at least: ``name`` alone does not say of what.
    """
    parts = {path: path.split(".") for path in paths}
    ends = {
        path: [".".join(of[-n:]) for n in range(min(2, len(of)), len(of) + 1)]
        for path, of in parts.items()
    }
    spoken = list(taken)
    counts: dict[str, int] = {}
    for path in paths:
        for end in ends[path]:
            counts[end] = counts.get(end, 0) + 1
    return {
        path: next(
            (end for end in ends[path] if counts[end] == 1 and end not in spoken),
            f"{path} (param)" if path in spoken else path,
        )
        for path in paths
    }


def objective_text(value: float) -> str:
    """An objective with four decimals, or four digits where that says too little or too much."""
    if value == 0 or 1e-3 <= abs(value) < 100:
        return f"{value + 0.0:.4f}"  # not -0.0000
    return number_text(float(value))
