"""The encoder actor: one `ExtractionPipeline` in a Ray process of its own."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import cv2
import pyarrow as pa
import ray

from crane_ray.errors import CraneError, EncoderError
from crane_ray.features.cards import ENCODERS
from crane_ray.features.encoder import EncoderPlugin, PatchEncoder
from crane_ray.features.extraction import Output, Shard
from crane_ray.features.ledger import RECEIPT_SCHEMA
from crane_ray.features.pipeline import ExtractionPipeline
from crane_ray.features.store import FeatureStore
from crane_ray.features.weights import Weights
from crane_ray.logs import stay_in_run
from crane_ray.plugins import load_plugin
from crane_ray.runtime import worker_metrics
from crane_ray.runtime.live import Teller
from crane_ray.slides.handles import OpenSlides
from crane_ray.slides.staging import StagingConfig

log = logging.getLogger(__name__)

SHARD_SCHEMA = pa.schema(
    [
        ("slide_id", pa.string()),
        ("uri", pa.string()),
        ("patches", pa.string()),
        ("num_patches", pa.int64()),
        ("coords_checksum", pa.string()),
        ("shard", pa.int32()),
        ("attempt", pa.int32()),
        ("outputs", pa.list_(pa.int32())),
    ]
)
"""In the order of the fields of `Shard`."""
RESULT_SCHEMA = RECEIPT_SCHEMA.append(pa.field("output", pa.int32()))
"""A receipt, and the store that it belongs to by its place in the run."""


@dataclass(frozen=True)
class Target:
    """A store to write to, and the weights of its encoder."""

    root: str
    weights: "ray.ObjectRef[Weights]"


def shard_table(shards: Sequence[Shard]) -> pa.Table:
    """A block of work."""
    return pa.Table.from_pylist([vars(shard) for shard in shards], SHARD_SCHEMA)


class ExtractionActor:
    """Loads the encoders once, then turns blocks of shards into receipts, several at a time."""

    def __init__(
        self,
        *,
        targets: Sequence[Target],
        threads: int,
        on_gpu: bool,
        batch_size: int,
        reader: str,
        staging: StagingConfig,
        run_id: str,
        teller: Callable[[], Teller],
    ) -> None:
        self._encoders: list[str] = []
        self._tell = teller()
        worker_metrics.watch()
        stay_in_run(run_id=run_id, verb="extract")
        self._broken = ""
        cv2.setNumThreads(1)  # the decoding threads already use the CPUs that Ray gave
        try:
            outputs = [load_output(target, threads, on_gpu=on_gpu) for target in targets]
            self._encoders = [output.encoder.info.name for output in outputs]
            self._tell.encoders = worker_metrics.together(self._encoders)
            worker_metrics.expect_receipts(self._encoders)
            self._pipeline = ExtractionPipeline(
                outputs,
                batch_size=batch_size,
                decode_threads=threads,
                slides=OpenSlides(reader=reader, cache_for=staging.cache_for),
                run_id=run_id,
                on_patches=self._tell,
            )
        except CraneError as error:
            # Told through a receipt: an exception here would only read as a dead actor.
            self._broken = str(error)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Receipts of the shards in a block (Ray may send an empty one); threads may call it."""
        shards = [
            Shard(**{**record, "outputs": tuple(record["outputs"])}) for record in table.to_pylist()
        ]
        if self._broken:
            rows = [self._refuse(shard) for shard in shards]
        else:
            coming = [self._pipeline.submit(shard) for shard in shards]
            rows = [
                {**asdict(receipt), "output": place}
                for shard, future in zip(shards, coming, strict=True)
                for place, receipt in zip(shard.outputs, future.result(), strict=True)
            ]
            worker_metrics.count_receipts(rows, self._encoders)
        self._tell.flush()
        worker_metrics.tell()
        return pa.Table.from_pylist(rows, RESULT_SCHEMA)

    def _refuse(self, shard: Shard) -> dict[str, Any]:
        refused = shard.receipt(error=self._broken, fatal=True)
        return {**asdict(refused), "output": shard.outputs[0]}


def load_output(target: Target, threads: int, *, on_gpu: bool) -> Output:
    """A store and the encoder of its recipe on this process's GPU or on ``threads`` CPUs."""
    store = FeatureStore.open(target.root)
    weights = ray.get(target.weights)
    return Output(store, load_encoder(store, weights, threads=threads, on_gpu=on_gpu))


def load_encoder(
    store: FeatureStore, weights: Weights, *, threads: int, on_gpu: bool
) -> PatchEncoder:
    """The encoder of a store's recipe on this process's GPU or on ``threads`` CPUs.

    Raises:
        EncoderError: Ray gave a GPU that torch cannot use.
        ConfigError: the weights do not fit.
    """
    import torch

    from crane_ray.features.torch_encoder import TorchEncoder, load_network

    torch.set_num_threads(threads)
    if on_gpu and not torch.cuda.is_available():
        raise EncoderError(
            "Ray gave this actor a GPU, but torch cannot use one (no CUDA build, or driver too "
            "old); fix the node's image, or set actors.gpus=0 to encode on CPUs"
        )
    info = store.recipe.encoder
    plugin = cast(EncoderPlugin, load_plugin(ENCODERS, info.name))
    return TorchEncoder(info, load_network(plugin, weights), "cuda" if on_gpu else "cpu")
