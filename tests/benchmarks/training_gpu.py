"""Training on a GPU beside the published loop, at equal visits of bags; skipped without one."""

import time
from collections.abc import Callable, Sequence

import torch

from crane_ray.mil.grouped import GroupedEngine
from crane_ray.mil.loop import Engine, SingleEngine
from crane_ray.mil.run import FoldRun
from tests.benchmarks.published_loop import BagFiles, PublishedNetwork, train_epoch
from tests.benchmarks.table import Options, Row
from tests.benchmarks.training_cohort import BIOPSIES, TrainingCohort, cohort

NUM_FOLDS, GATE = 10, 20.0


def measure(options: Options) -> list[Row]:
    """One fold, and ten together."""
    if not torch.cuda.is_available():
        return [Row("training on a GPU", None, "visits/s", note="no GPU that torch can use here")]
    with cohort(BIOPSIES, 20 if options.quick else 60) as bags:
        rounds = 2 if options.quick else 5
        published = _published(bags, rounds)
        study = bags.study(precision="bf16", device="cuda", resident_bytes=1 << 34)
        run, folds = bags.start(study), bags.start_folds(study, NUM_FOLDS)
        alone = _visits_a_second(SingleEngine(study), [run], rounds)
        together = _visits_a_second(GroupedEngine(study, folds), folds, rounds)
    name = torch.cuda.get_device_name()
    return [
        _row("one fold, one bag a step, bf16", alone, published, name),
        _row(f"{NUM_FOLDS} folds together, bf16", together, published, name, gate=GATE),
    ]


def _row(
    stage: str, ours: float, published: float, device: str, *, gate: float | None = None
) -> Row:
    ratio = ours / published
    words, met = ("", None) if gate is None else (f">= {gate:g}x", ratio >= gate)
    return Row(stage, ours, "visits/s", words, met, comparator=published, ratio=ratio, note=device)


def _published(bags: TrainingCohort, rounds: int) -> float:
    network = PublishedNetwork(bags.size.dim, 0.25).cuda()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, weight_decay=1e-5)
    files = BagFiles(bags.folder, "pt", bags.labels, sorted(bags.labels))
    seconds = _seconds(lambda epoch: train_epoch(network, optimizer, files, "cuda"), rounds)
    return len(files) / seconds


def _visits_a_second(engine: Engine, runs: Sequence[FoldRun], rounds: int) -> float:
    seconds = _seconds(lambda epoch: engine.train_epoch(runs, epoch), rounds)
    return sum(len(run.bags.train) for run in runs) / seconds


def _seconds(epoch: Callable[[int], object], rounds: int) -> float:
    """Wall time of the best epoch; the first one, which moves features and loads kernels, apart."""
    epoch(0)
    found = []
    for number in range(1, rounds + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        epoch(number)
        torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found)
