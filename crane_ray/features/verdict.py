"""What limits a run, from where its encoders' time went, and what to do about it."""

from dataclasses import dataclass

from crane_ray.features.clock import Shares

MEASURED_FROM_S = 1.0
"""Seconds of encoders' time below which nothing is said."""


@dataclass(frozen=True)
class Verdict:
    """The stage that the others wait for."""

    limit: str
    """encoding, decoding, staging, storage, or scheduling."""
    share: float
    """Of the encoders' time, in [0, 1]."""
    advice: str
    """The setting to change."""

    @property
    def words(self) -> str:
        """For a progress line."""
        return f"{self.limit} is the limit ({self.share:.0%} of the encoders' time)"


LIMITS = {
    "encode_s": ("encoding", "the encoders are busy, as they should be: more or faster GPUs "
                 "(--address) make it faster, or --precision bf16 where it is fp32"),
    "decode_wait_s": ("decoding", "the encoders wait for pixels: give each actor more CPUs "
                      "(actors.cpus), or put the slides on faster storage (--stage)"),
    "staging_wait_s": ("staging", "the encoders wait for slides to be fetched: a larger cache "
                       "(--cache-gb), storage nearer to the nodes, or fewer actors a node"),
    "write_wait_s": ("storage", "the encoders wait for features to be written: faster storage for "
                     "the store (--store), or --dtype float16"),
    "idle_s": ("scheduling", "the encoders wait for work: fewer actors (--actors), for there are "
               "not enough patches for all of them"),
}  # fmt: skip


ON_CPUS = "the CPUs that encode are busy: GPUs, or more CPUs (--address), make it faster"


def judge(shares: Shares, *, on_gpu: bool = True) -> Verdict | None:
    """The verdict on a run so far; None before enough was measured."""
    spent: dict[str, float] = vars(shares)
    whole = sum(spent.values())
    if whole < MEASURED_FROM_S:
        return None
    state = max(spent, key=lambda name: spent[name])
    limit, advice = LIMITS[state]
    if state == "encode_s" and not on_gpu:
        advice = ON_CPUS
    return Verdict(limit, spent[state] / whole, advice)
