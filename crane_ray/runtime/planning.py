"""A cohort and measured rates turned into a plan in words. Imports no ray."""

from dataclasses import dataclass

from crane_ray.errors import ConfigError
from crane_ray.preflight.cohort_size import counted_patches, estimated_patches
from crane_ray.preflight.judging import gb
from crane_ray.preflight.planning import CohortSize, Group, Plan, groups_of, make_plan
from crane_ray.preflight.rates import RatesFile, read_rates
from crane_ray.runtime.preflight_jobs import PlanJob

USUAL_DIM = 1024


@dataclass(frozen=True)
class Estimate:
    """A plan with what it rests on."""

    plan: Plan
    rows: tuple[tuple[str, str], ...]
    """Name and value, for a table."""
    assumptions: tuple[str, ...]


def run_plan(job: PlanJob) -> Estimate:
    """The plan of a job.

    Raises:
        ConfigError: no such cohort or rates file, or they say too little.
    """
    cohort = _cohort(job)
    rates = read_rates(job.rates) if job.rates is not None else None
    groups = _groups(job, rates)
    dim, dim_words = _dim(job, rates)
    plan = make_plan(cohort, groups, dim=dim, dtype=job.dtype)
    assumptions = (
        f"patches: {cohort.basis}",
        f"rates: {_rate_words(job, rates, groups)}",
        f"features: {dim:,} numbers of {job.dtype} a patch ({dim_words}), in a zarr store: with "
        "coordinates, filled-up last chunks and metadata",
        "the cluster does nothing else, and storage delivers slides as fast as they are read",
        "not counted: finding tissue (crane-ray patch), starting up, training",
    )
    return Estimate(plan, tuple(_rows(plan, cohort)), assumptions)


def _cohort(job: PlanJob) -> CohortSize:
    if job.work is not None:
        return counted_patches(job.work)
    assert job.slides is not None
    return estimated_patches(
        job.slides, patch_px=job.patch_px, mpp=job.mpp, tissue_share=job.tissue_share
    )


def _groups(job: PlanJob, rates: RatesFile | None) -> list[Group]:
    """The cluster as measured, or as asked for with the rates of what was measured."""
    measured = groups_of(rates) if rates is not None else []
    if rates is not None and not measured:
        raise ConfigError(f"--rates {job.rates}: none of its nodes has CPUs; run doctor again")
    if job.gpus is None and job.cpus is None:
        return [_with_asked(job, group) for group in measured]
    gpus = job.gpus if job.gpus is not None else sum(group.gpus for group in measured)
    cpus = job.cpus if job.cpus is not None else sum(group.cpus for group in measured)
    if not cpus:
        raise ConfigError("--cpus N is needed, too: GPUs do not decode the patches")
    kind = groups_of(rates, on_gpu=bool(gpus)) if rates is not None else []
    if not kind and job.patches_a_second is None:
        what = "a GPU" if gpus else "a CPU"
        raise ConfigError(
            f"--rates {job.rates}: does not say how fast {what} encodes; give "
            f"--patches-a-second N for {what}, or run crane-ray doctor on such a cluster"
        )
    slowest = min(kind or measured, key=lambda group: group.encode, default=None)
    decode = min((group.decode for group in measured if group.decode), default=None)
    encode = slowest.encode if slowest is not None else job.patches_a_second
    assert encode is not None
    return [_with_asked(job, Group(cpus, gpus, encode, decode))]


def _with_asked(job: PlanJob, group: Group) -> Group:
    return Group(
        group.cpus,
        group.gpus,
        job.patches_a_second or group.encode,
        job.decode_a_second or group.decode,
    )


def _dim(job: PlanJob, rates: RatesFile | None) -> tuple[int, str]:
    if job.dim is not None:
        return job.dim, "as given"
    if rates is not None:
        return rates.dim, f"those of {rates.encoder}"
    return USUAL_DIM, "those of resnet50_trunc and uni_v1; --dim for others"


def _rate_words(job: PlanJob, rates: RatesFile | None, groups: list[Group]) -> str:
    per = "GPU" if groups[0].gpus else "CPU"
    if job.patches_a_second is not None:
        words = f"a {per} encodes {job.patches_a_second:,.0f} patches/s, as given"
    else:
        assert rates is not None
        found = " to ".join(dict.fromkeys(f"{rate:,.0f}" for rate in _ends(groups)))
        words = f"a {per} encodes {found} patches/s with {rates.encoder}, as {job.rates} says "
        words += (
            "(batch by batch and without torch.compile: long runs are faster)"
            if groups[0].gpus
            else "(one core alone; several together may be slower)"
        )
    decode = [group.decode for group in groups if group.decode]
    if not decode:
        return (
            f"{words}; how fast a CPU decodes is not known and not counted (crane-ray doctor "
            "--rates-out measures it, --decode-a-second gives it)"
        )
    origin = "as given" if job.decode_a_second else "measured on JPEG tiles; JPEG 2000 takes longer"
    return f"{words}; a CPU decodes {min(decode):,.0f} patches/s ({origin})"


def _ends(groups: list[Group]) -> tuple[float, float]:
    rates = [group.encode for group in groups]
    return min(rates), max(rates)


def _rows(plan: Plan, cohort: CohortSize) -> list[tuple[str, str]]:
    rows = [
        ("slides", f"{plan.num_slides:,}"),
        ("patches", f"{plan.num_patches:,}"),
        ("patches a second", f"{plan.patches_a_second:,.0f}"),
        ("wall time", hours(plan.wall_hours)),
    ]
    if plan.gpu_hours is not None and plan.gpu_hours_held is not None:
        rows.append(("GPU-hours of encoding", f"{plan.gpu_hours:,.2f}"))
        rows.append(("GPU-hours held", f"{plan.gpu_hours_held:,.2f}"))
        needed = "not known" if plan.cpus_per_gpu is None else f"{plan.cpus_per_gpu:,}"
        rows.append(("CPUs a GPU needs", f"{needed} (there: {plan.cpus_there_per_gpu:,.1f})"))
        limit = "decoding: GPUs wait for patches" if plan.decoding_limits else "the GPUs"
        if plan.cpus_per_gpu is None:
            limit = "the GPUs, if decoding keeps up"
        rows.append(("what limits the run", limit))
    else:
        rows.append(("what limits the run", "encoding on CPUs"))
    rows.append(("CPU-hours held", f"{plan.cpu_hours:,.2f}"))
    rows.append(("storage of features", gb(plan.store_bytes)))
    if cohort.slide_bytes:
        rows.append(("slides to read", gb(cohort.slide_bytes)))
        rows.append(("from storage, at least", f"{gb(plan.read_bytes_a_second)}/s"))
    return rows


def hours(number: float) -> str:
    """A time in the unit that reads best."""
    if number >= 48:
        return f"{number / 24:,.1f} days"
    if number >= 1:
        return f"{number:,.1f} hours"
    return f"{number * 60:,.1f} minutes" if number * 60 >= 1 else f"{number * 3600:,.1f} seconds"
