"""The encoder actor: one `ShardExtractor` in a Ray process of its own."""

import logging
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import ray

from crane_ray.errors import CraneError, EncoderError
from crane_ray.features.extraction import Shard, ShardExtractor
from crane_ray.features.ledger import RECEIPT_SCHEMA, Receipt
from crane_ray.features.store import FeatureStore
from crane_ray.features.weights import Weights
from crane_ray.plugins import load_plugin
from crane_ray.runtime.encoders import ENCODERS
from crane_ray.runtime.live import Teller

log = logging.getLogger(__name__)


class ExtractionActor:
    """Loads the encoder once, then turns rows of shards into receipts, a row at a time."""

    def __init__(
        self,
        *,
        root: str,
        weights: "ray.ObjectRef[Weights]",
        threads: int,
        on_gpu: bool,
        batch_size: int,
        run_id: str,
        counter: Any,
    ) -> None:
        self._tell = Teller(counter)
        self._broken = ""
        try:
            store = FeatureStore.open(root)
            encoder = load_encoder(store, ray.get(weights), threads=threads, on_gpu=on_gpu)
            self._extractor = ShardExtractor(
                store,
                encoder,
                batch_size=batch_size,
                decode_threads=threads,
                run_id=run_id,
                on_patches=self._tell,
            )
        except CraneError as error:
            # Told through a receipt: an exception here would only read as a dead actor.
            self._broken = str(error)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Receipts of the shards in a block (Ray may send an empty one)."""
        receipts = [self._extract(Shard(**record)) for record in table.to_pylist()]
        return pa.Table.from_pylist([asdict(receipt) for receipt in receipts], RECEIPT_SCHEMA)

    def _extract(self, shard: Shard) -> Receipt:
        if self._broken:
            return Receipt(
                shard.slide_id,
                shard.shard,
                "error",
                shard.num_patches,
                shard.coords_checksum,
                error=self._broken,
                fatal=True,
            )
        receipt = self._extractor.extract(shard)
        self._tell.flush()
        return receipt


def load_encoder(store: FeatureStore, weights: Weights, *, threads: int, on_gpu: bool) -> Any:
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
    plugin = load_plugin(ENCODERS, info.name)
    return TorchEncoder(info, load_network(plugin, weights), "cuda" if on_gpu else "cpu")
