"""The built-in plug-ins hold to the contracts, and the contracts tell broken ones."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torch import nn

from crane_ray.errors import StorageError, StoreError
from crane_ray.features.encoder import EncoderCard, EncoderInfo, Features, Precision
from crane_ray.features.encoders import resnet50_trunc
from crane_ray.features.store import Array, SlideHeader
from crane_ray.features.stores import parquet
from crane_ray.features.stores.zarr import FORMAT, ZarrFormat
from crane_ray.features.torch_encoder import TorchEncoder, load_network
from crane_ray.features.weights import Weights
from crane_ray.slides.opening import open_slide
from crane_ray.slides.params import TissueParams
from crane_ray.slides.segmenters import saturation
from crane_ray.slides.slide import Slide
from crane_ray.slides.tissue import TissueContour, TissueContours
from crane_ray.testing.contracts import (
    check_encoder,
    check_encoder_plugin,
    check_reader,
    check_segmenter,
    check_slide_format,
)
from crane_ray.testing.contracts.segmenter import ArrayReader
from crane_ray.testing.histology import paint_slide
from crane_ray.testing.pyramids import write_pyramid

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def image() -> Pixels:
    return paint_slide(np.random.default_rng(3), size_px=(1024, 772), mpp=2.0).image


def test_zarr(tmp_path: Path) -> None:
    check_slide_format(FORMAT, tmp_path)


def test_parquet(tmp_path: Path) -> None:
    check_slide_format(parquet.FORMAT, tmp_path)


@pytest.mark.parametrize("name", ["openslide", "tiff"])
def test_readers_of_a_pyramid(tmp_path: Path, image: Pixels, name: str) -> None:
    path = write_pyramid(tmp_path / "s.tif", image, mpp=0.5, num_levels=3)
    with open_slide(Slide("s", str(path)), name) as reader:
        assert reader.name == name
        check_reader(reader)


def test_image(tmp_path: Path, image: Pixels) -> None:
    Image.fromarray(image).save(tmp_path / "s.png")
    with open_slide(Slide("s", str(tmp_path / "s.png"))) as reader:
        assert reader.name == "image"
        check_reader(reader)


def test_the_array_reader_of_the_segmenter_suite(image: Pixels) -> None:
    check_reader(ArrayReader(image))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resnet50_trunc(precision: Precision) -> None:
    info = EncoderInfo(
        name="resnet50_trunc",
        dim=1024,
        input_size_px=32,
        mean=resnet50_trunc.CARD.mean,
        std=resnet50_trunc.CARD.std,
        precision=precision,
        weights="random seed 0",
        weights_sha256="0",
    )
    network = load_network(resnet50_trunc, Weights("random seed 0", "0", None))
    check_encoder(TorchEncoder(info, network, "cpu"), patch_sizes_px=(32, 48), batch_size=3)


def plugin(network: nn.Module) -> Any:
    return SimpleNamespace(CARD=EncoderCard(dim=12, input_size_px=8), build=lambda: network)


def test_a_plug_in_is_held_to_its_card_and_its_network() -> None:
    good = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    check_encoder_plugin(plugin(good))
    with pytest.raises(AssertionError, match=r"features \(5, 3\), \(5, 12\) expected"):
        check_encoder_plugin(plugin(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())))


def test_saturation() -> None:
    check_segmenter(saturation)


class Counting(ZarrFormat):
    """Says in a file how many writes there were before."""

    def write(self, path: str, header: SlideHeader, start: int, features: Array, xy: Array) -> None:
        super().write(path, header, start, features, xy)
        (Path(path) / f"log-{start}").write_text(str(len(list(Path(path).iterdir()))))


class Zeros(ZarrFormat):
    def read(self, path: str, start: int, stop: int | None) -> tuple[Array, Array]:
        try:
            return super().read(path, start, stop)
        except StoreError:
            rows = (stop or 9) - start
            return np.zeros((rows, 6), np.float16), np.zeros((rows, 2), np.int32)


class Widened(ZarrFormat):
    def read(self, path: str, start: int, stop: int | None) -> tuple[Array, Array]:
        features, xy = super().read(path, start, stop)
        return features.astype(np.float32), xy


class Shared(ZarrFormat):
    def path(self, slides: str, slide_id: str) -> str:
        return super().path(slides, slide_id.split(".", maxsplit=1)[0])


class Forgiving(ZarrFormat):
    def write(self, path: str, header: SlideHeader, start: int, features: Array, xy: Array) -> None:
        try:
            super().write(path, header, start, features, xy)
        except StorageError:
            return


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Counting, "other bytes|changed the bytes"),
        (Zeros, "never written is read"),
        (Widened, "features are float32"),
        (Shared, "share a path"),
        (Forgiving, "StorageError"),
    ],
)
def test_broken_formats_are_told(tmp_path: Path, broken: type[ZarrFormat], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_slide_format(broken(), tmp_path)


class Moved(ArrayReader):
    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        return super().read_region((max(xy[0], 0), max(xy[1], 0)), level, size)


class White(ArrayReader):
    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        pixels = super().read_region(xy, level, size)
        return np.where(pixels.any(axis=2, keepdims=True), pixels, np.uint8(255))


class LevelFrame(ArrayReader):
    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        return super().read_region((xy[0] * 2**level, xy[1] * 2**level), level, size)


class Turned(ArrayReader):
    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        return super().read_region(xy, level, size).transpose(1, 0, 2)


class Unsafe(ArrayReader):
    """Keeps the place between two calls in a field, as a shared file position would be."""

    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        self.place = xy
        super().read_region(xy, level, (512, 512))
        return super().read_region(self.place, level, size)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Moved, "not black|moves the pixels"),
        (White, "not black"),
        (LevelFrame, "another place|not black"),
        (Turned, "shape"),
        (Unsafe, "threads at once"),
    ],
)
def test_broken_readers_are_told(image: Pixels, broken: type[ArrayReader], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_reader(broken(image))


class Means:
    """Mean colours, with one thing or another made wrong afterwards."""

    info = EncoderInfo(
        name="means",
        dim=3,
        input_size_px=16,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        precision="fp32",
        weights="none",
        weights_sha256="0",
    )

    def __init__(self, spoil: Callable[[Features], Any] = lambda features: features) -> None:
        self.spoil = spoil

    def encode(self, pixels: Pixels) -> Features:
        features: Features = self.spoil(pixels.mean(axis=(1, 2)).astype(np.float32))
        return features


class Drift:
    """Adds one more each time."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, features: Features) -> Features:
        self.calls += 1
        return np.asarray(features + self.calls, dtype=np.float32)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda features: features - features.mean(axis=0), "other patches of its batch"),
        (lambda features: features + np.arange(len(features), dtype=np.float32)[:, None], "place"),
        (lambda features: features.astype(np.float64), "float64"),
        (lambda features: features[:, :2], "expected"),
        (lambda features: features / (features != 0), "finite|other features"),
        (lambda features: features * 0, "different patches"),
        (Drift(), "second time"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_broken_encoders_are_told(spoil: Callable[[Features], Any], message: str) -> None:
    check_encoder(Means())
    with pytest.raises(AssertionError, match=message):
        check_encoder(Means(spoil))


def in_level_frame(reader: ArrayReader, params: TissueParams) -> TissueContours:
    tissue = saturation.segment(reader, params)
    return TissueContours(tuple(TissueContour(c.outline // 4) for c in tissue.contours))


def everything(reader: ArrayReader, params: TissueParams) -> TissueContours:
    return saturation.segment(reader, params.model_copy(update={"keep_ids": (), "exclude_ids": ()}))


def closing(reader: ArrayReader, params: TissueParams) -> TissueContours:
    tissue = saturation.segment(reader, params)
    reader.close()
    return tissue


@pytest.mark.parametrize(
    ("segment", "message"),
    [(in_level_frame, "level-0 px"), (everything, "is not followed")],
)
def test_broken_segmenters_are_told(segment: Callable[..., TissueContours], message: str) -> None:
    module = ModuleType("broken")
    module.segment = segment  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match=message):
        check_segmenter(module)


def test_a_segmenter_that_closes_the_reader_is_told() -> None:
    module = ModuleType("closing")
    module.segment = closing  # type: ignore[attr-defined]
    with pytest.raises(IndexError):
        check_segmenter(module)
