"""Training on one CPU core beside the published loop: epochs, folds together, reading of bags.

The published loop gets the same bags in the same order, and the same weights. Without dropout its
losses must be ours (`_losses_agree`); times are taken with dropout, as networks are trained.
The floor is the network's matrix products alone, at the rate of this core.
"""

from collections.abc import Callable
from functools import partial

import torch

from crane_ray.mil.configs import ATTENTION_DIMS
from crane_ray.mil.grouped import GroupedEngine
from crane_ray.mil.loop import Engine, SingleEngine, fold_order
from crane_ray.mil.prediction import Study
from crane_ray.mil.run import FoldRun
from crane_ray.mil.turns import TurnsEngine
from tests.benchmarks.published_loop import BagFiles, PublishedNetwork, read_features, train_epoch
from tests.benchmarks.table import Options, Row, Timing, interleaved, pinned
from tests.benchmarks.training_cohort import BIOPSIES, REGIONS, TrainingCohort, cohort

NUM_FOLDS = 5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LOSS_TOLERANCE = 1e-4
NOISE = 0.03
"""By which equal work differs here from time to time; large bags leave folds nothing to share."""


def measure(options: Options) -> list[Row]:
    """Rows of epochs, of folds together, and of reading."""
    threads = torch.get_num_threads()
    rows = []
    with pinned(options.core):
        torch.set_num_threads(1)
        try:
            for size, many, few in ((BIOPSIES, 60, 6), (REGIONS, 400, 60)):
                with cohort(size, many // 10 if options.quick else many) as found:
                    rows += _epochs(found, 2 if options.quick else 4)
                    if size is BIOPSIES:
                        rows += _reading(found, 2 if options.quick else 5)
                with cohort(size, few // 2 if options.quick else few) as found:
                    rows += _folds(found, 2 if options.quick else 8)
        finally:
            torch.set_num_threads(threads)
    return rows


class _Ours:
    """Epochs of the package's loop."""

    def __init__(self, bags: TrainingCohort, study: Study) -> None:
        self.study, self.run, self._engine = study, bags.start(study), SingleEngine(study)
        self._epoch = 0

    def __call__(self) -> float:
        (loss,) = self._engine.train_epoch([self.run], self._epoch)
        self._epoch += 1
        return loss


class _Published:
    """Epochs of the published loop, in the order and from the weights of a run of ours."""

    def __init__(self, bags: TrainingCohort, study: Study, run: FoldRun) -> None:
        self._bags, self._study, self._run, self._epoch = bags, study, run, 0
        optim = study.config.training.optim
        self._network = PublishedNetwork(bags.size.dim, study.config.model.dropout)
        self._network.load_state_dict(run.network.state_dict())
        weights = self._network.parameters()
        self._optimizer = torch.optim.Adam(weights, lr=optim.lr, weight_decay=optim.weight_decay)

    def __call__(self) -> float:
        order = [bag.bag_id for bag in fold_order(self._run, self._study, self._epoch)]
        self._epoch += 1
        files = BagFiles(self._bags.folder, "pt", self._bags.labels, order)
        return train_epoch(self._network, self._optimizer, files)


def _epochs(bags: TrainingCohort, rounds: int) -> list[Row]:
    """An epoch in each precision beside the published loop's in fp32."""
    ours = {precision: _Ours(bags, bags.study(precision=precision)) for precision in DTYPES}
    ways: dict[str, Callable[[], object]] = {
        "published": _Published(bags, ours["fp32"].study, ours["fp32"].run), **ours
    }  # fmt: skip
    for precision, dtype in DTYPES.items():
        ways[f"floor {precision}"] = _products(bags, dtype)
    times = interleaved(ways, rounds)
    deviation = _loss_deviation(bags)
    agree = deviation <= LOSS_TOLERANCE
    rows = []
    for precision, gate in bags.size.gates.items():
        ratio = times["published"].best_s / times[precision].best_s
        median = times["published"].median_s / times[precision].median_s
        floor = times[f"floor {precision}"].best_s
        rows.append(
            Row(
                f"an epoch, bags of {bags.size.name}, {precision}",
                len(bags.bags) / times[precision].best_s,
                "bags/CPU-s",
                f">= {gate:g}x, losses agree",
                ratio >= gate and agree,
                comparator=len(bags.bags) / times["published"].best_s,
                floor=len(bags.bags) / floor,
                ratio=ratio,
                note=f"{floor / times[precision].best_s:.0%} of the floor; median {median:.2f}x; "
                f"losses differ by {deviation:.0e} without dropout in fp32",
            )
        )
    return rows


def _loss_deviation(bags: TrainingCohort) -> float:
    """The largest difference of two epochs' mean losses from the published loop's."""
    study = bags.study(dropout=0.0)
    ours = _Ours(bags, study)
    published = _Published(bags, study, ours.run)
    return max(abs(ours() - published()) for _ in range(2))


def _products(bags: TrainingCohort, dtype: torch.dtype) -> Callable[[], None]:
    """The matrix products of the network's large layers, forward and backward, once a bag."""
    width, num = ATTENTION_DIMS["big"], bags.size.patches
    layers = [(bags.size.dim, 512), (512, 512), (512, width), (512, width)]
    given = [
        (torch.randn(num, a).to(dtype), torch.randn(a, b).to(dtype), torch.randn(num, b).to(dtype))
        for a, b in layers
    ]

    def products() -> None:
        for _ in bags.bags:
            for place, (values, weights, gradient) in enumerate(given):
                torch.mm(values, weights)
                torch.mm(values.t(), gradient)
                if place:  # features need no gradient
                    torch.mm(gradient, weights.t())

    return products


def _folds(bags: TrainingCohort, rounds: int) -> list[Row]:
    """Folds that train together beside the same folds one after the other."""
    rows = []
    for precision in DTYPES:
        study = bags.study(precision=precision)
        ways: dict[str, Callable[[], object]] = {}
        apart, together, batched = (bags.start_folds(study, NUM_FOLDS) for _ in range(3))
        engines: dict[str, tuple[Engine, list[FoldRun]]] = {
            "apart": (SingleEngine(study), apart),
            "together": (TurnsEngine(study), together),
            "batched": (GroupedEngine(study, batched), batched),
        }
        for name, (engine, runs) in engines.items():
            ways[name] = partial(engine.train_epoch, runs, 0)
        times = interleaved(ways, rounds)
        equal = all(_same_weights(*pair) for pair in zip(apart, together, strict=True))
        rows.append(_folds_row(bags, precision, times, equal=equal))
    return rows


def _folds_row(
    bags: TrainingCohort, precision: str, times: dict[str, Timing], *, equal: bool
) -> Row:
    visits = len(bags.bags) * (NUM_FOLDS - 1)
    ratio = times["apart"].best_s / times["together"].best_s
    median = times["apart"].median_s / times["together"].median_s
    batched = times["apart"].best_s / times["batched"].best_s
    return Row(
        f"{NUM_FOLDS} folds together, bags of {bags.size.name}, {precision}",
        visits / times["together"].best_s,
        "visits/CPU-s",
        f"not slower (within {NOISE:.0%}), equal",
        ratio >= 1 - NOISE and equal,
        comparator=visits / times["apart"].best_s,
        ratio=ratio,
        note=f"{ratio:.3f}x, median {median:.3f}x; weights {'equal' if equal else 'DIFFER'}; one "
        f"batched network, as on GPUs: {batched:.2f}x",
    )


def _same_weights(one: FoldRun, other: FoldRun) -> bool:
    state = other.network.state_dict()
    return all(torch.equal(state[name], it) for name, it in one.network.state_dict().items())


def _reading(bags: TrainingCohort, rounds: int) -> list[Row]:
    """Bags from the pack as tensors of float32, beside files of a bag each."""
    reader = bags.study().reader
    tensors = [reader.read(bag) for bag in bags.bags[:4]]

    def from_pack() -> None:
        for bag in bags.bags:
            reader.read(bag)

    def from_files(kind: str) -> None:
        for bag in bags.bags:
            read_features(bags.folder / f"{bag.bag_id}.{kind}")

    def copies() -> None:
        for place in range(len(bags.bags)):
            tensors[place % len(tensors)].clone()

    ways: dict[str, Callable[[], object]] = {
        "pack": from_pack,
        "pt": partial(from_files, "pt"),
        "h5": partial(from_files, "h5"),
        "floor": copies,
    }
    times = interleaved(ways, rounds)
    megabytes = len(bags.bags) * tensors[0].nbytes / 1e6
    return [
        Row(
            f"bags of {bags.size.name} read from the pack, not {kind}",
            megabytes / times["pack"].best_s,
            "MB/CPU-s fp32",
            comparator=megabytes / times[kind].best_s,
            floor=megabytes / times["floor"].best_s,
            ratio=times[kind].best_s / times["pack"].best_s,
            note="warm; the pack holds float16, the file float32; the floor copies memory",
        )
        for kind in ("pt", "h5")
    ]
