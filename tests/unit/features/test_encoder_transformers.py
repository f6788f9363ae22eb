"""The published transformers: architectures, outputs, names of the published files, input."""

import io
import math
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from crane_ray.errors import ConfigError
from crane_ray.features.cards import encoder_info
from crane_ray.features.encoder import EncoderConfig
from crane_ray.features.encoders import (
    conch_v1,
    conch_v1_5,
    gigapath,
    h_optimus_0,
    phikon_v2,
    uni2_h,
    uni_v1,
    virchow2,
)
from crane_ray.features.torch_encoder import TorchEncoder, load_network
from crane_ray.features.transformers import resized_positions
from crane_ray.features.weights import Weights
from crane_ray.testing.contracts import check_encoder

pytest.importorskip("timm", reason="the extra 'encoders' is not installed")

State = dict[str, Any]
PLAIN = {"depth": 2, "width": 48, "heads": 3}
TOWER = {"depth": 2, "trunk_width": 48, "trunk_heads": 3, "width": 64}
TINY: dict[ModuleType, dict[str, int]] = {
    uni_v1: PLAIN,
    uni2_h: PLAIN,
    virchow2: PLAIN,
    gigapath: PLAIN,
    h_optimus_0: PLAIN,
    phikon_v2: PLAIN,
    conch_v1: TOWER,
    conch_v1_5: TOWER,
}
PARAMETERS = {
    uni_v1: 303.4,
    uni2_h: 681.4,
    virchow2: 631.2,
    gigapath: 1134.9,
    h_optimus_0: 1134.8,
    phikon_v2: 303.4,
    conch_v1: 87.6,
    conch_v1_5: 306.7,
}
"""Millions; the cards say 0.3, 0.68, 0.63, 1.1, 1.1 and 0.3 billion."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def name_of(module: ModuleType) -> str:
    return module.__name__.rsplit(".", 1)[-1]


def tiny(module: ModuleType, seed: int = 0) -> nn.Module:
    """The architecture in small, with weights that differ everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = module.build(**TINY[module])
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
    return network.eval()


def tiny_plugin(module: ModuleType) -> Any:
    return SimpleNamespace(
        CARD=module.CARD, build=lambda: tiny(module), prepare_state=module.prepare_state
    )


def loaded(module: ModuleType, state: State) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    return load_network(tiny_plugin(module), Weights("w.bin", "0", data, ".bin")).eval()


def images(count: int, size_px: int) -> torch.Tensor:
    return torch.randn(count, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))


def patches(count: int, size_px: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    fine = coarse.repeat(size_px // 16, axis=1).repeat(size_px // 16, axis=2)
    return np.asarray(np.clip(fine + rng.integers(-20, 21, fine.shape), 0, 255), dtype=np.uint8)


@pytest.mark.parametrize("module", TINY, ids=name_of)
def test_the_architecture_is_the_published_one(module: ModuleType) -> None:
    card = module.CARD
    with torch.device("meta"):
        network = module.build().eval()
        features_BD = network(torch.empty(2, 3, card.input_size_px, card.input_size_px))
    assert tuple(features_BD.shape) == (2, card.dim)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions == pytest.approx(PARAMETERS[module], abs=0.06)


@pytest.mark.parametrize("module", TINY, ids=name_of)
def test_the_contract(module: ModuleType) -> None:
    card, network = module.CARD, tiny(module)
    with torch.inference_mode():
        dim = network(images(1, card.token_px * 4)).shape[1]
    info = encoder_info(
        EncoderConfig(name=name_of(module), input_size=card.token_px * 4),
        card,
        patch_px=256,
        precision="fp32",
        label="random seed 0",
        sha256="0",
    ).model_copy(update={"dim": dim})
    encoder = TorchEncoder(info, network, "cpu")
    check_encoder(encoder, patch_sizes_px=(card.token_px * 4, 96), batch_size=3)


def hub_names(module: ModuleType, network: nn.Module) -> State:
    """A network's state under the names that the published file of its architecture has."""
    state = dict(network.state_dict())
    if module is virchow2:
        return {key.removeprefix("trunk."): value for key, value in state.items()}
    if module is conch_v1:
        other = {"text.transformer.weight": torch.zeros(2), "logit_scale": torch.ones([])}
        captions = {"visual.attn_pool_caption.query": torch.zeros(2, 2)}
        return {**{f"visual.{key}": value for key, value in state.items()}, **other, **captions}
    if module is phikon_v2:
        return transformers_names(state)
    return state


def transformers_names(state: State) -> State:
    """timm's names as `Dinov2Model` has them, written out from its documentation."""
    renamed: State = {
        "embeddings.mask_token": torch.zeros(1, 48),
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    for block in range(2):
        ours, theirs = f"blocks.{block}", f"encoder.layer.{block}"
        for kind in ("weight", "bias"):
            joined = state[f"{ours}.attn.qkv.{kind}"]
            parts = zip(("query", "key", "value"), joined.chunk(3), strict=True)
            for part, value in parts:
                renamed[f"{theirs}.attention.attention.{part}.{kind}"] = value.clone()
            renamed[f"{theirs}.attention.output.dense.{kind}"] = state[f"{ours}.attn.proj.{kind}"]
            for layer in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                renamed[f"{theirs}.{layer}.{kind}"] = state[f"{ours}.{layer}.{kind}"]
        for scale in (1, 2):
            value = state[f"{ours}.ls{scale}.gamma"]
            renamed[f"{theirs}.layer_scale{scale}.lambda1"] = value
    return renamed


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("module", TINY, ids=name_of)
def test_a_file_with_the_published_names_gives_the_networks_features(
    module: ModuleType, prefix: str
) -> None:
    source = tiny(module, seed=7)
    state = {prefix + key: value for key, value in hub_names(module, source).items()}
    network = loaded(module, state)
    with torch.inference_mode():
        batch = images(2, module.CARD.token_px * 4)
        expected, random = source(batch), tiny(module)(batch)
        torch.testing.assert_close(network(batch), expected, rtol=0, atol=0)
    assert not torch.allclose(random, expected)


@pytest.mark.parametrize("module", TINY, ids=name_of)
def test_a_file_that_lacks_a_tensor_is_refused(module: ModuleType) -> None:
    state = hub_names(module, tiny(module))
    lost = next(key for key in state if key.endswith(("attn.qkv.weight", "attention.key.weight")))
    del state[lost]
    with pytest.raises(ConfigError, match=r"do not fit the encoder: 1 of"):
        loaded(module, state)


def test_phikon_takes_the_names_of_newer_transformers_too() -> None:
    source = tiny(phikon_v2, seed=7)
    shorter = {
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
    }
    state = {}
    for key, value in hub_names(phikon_v2, source).items():
        for old, new in shorter.items():
            key = key.replace(old, new)  # noqa: PLW2901
        state[key] = value
    batch = images(1, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(phikon_v2, state)(batch), source(batch))


def test_virchow_joins_the_class_token_and_the_mean_of_patches_without_registers() -> None:
    network: Any = tiny(virchow2)
    with torch.inference_mode():
        batch = images(2, 56)
        tokens = network.trunk.forward_features(batch)
        assert tokens.shape == (2, 1 + 4 + 16, 48)
        expected = torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], dim=1)
        torch.testing.assert_close(network(batch), expected)


def attended(tokens_TC: torch.Tensor, matrices: list[torch.Tensor], query_D: torch.Tensor) -> Any:
    """What eight heads gather from tokens, written out head by head."""
    to_q, to_k, to_v = matrices
    q, k, v = to_q @ query_D, tokens_TC @ to_k.T, tokens_TC @ to_v.T
    gathered = []
    for head in range(8):
        own = slice(head * 8, head * 8 + 8)
        weights = torch.softmax(k[:, own] @ q[own] / math.sqrt(8), dim=0)
        gathered.append(weights @ v[:, own])
    return torch.cat(gathered)


def test_the_pooler_of_conch_v1() -> None:
    network: Any = tiny(conch_v1)
    pool = network.attn_pool_contrast
    nn.init.zeros_(pool.attn.in_proj_bias)
    tokens_TC = torch.randn(30, 48)
    matrices = [pool.attn.q_proj_weight, pool.attn.k_proj_weight, pool.attn.v_proj_weight]
    with torch.inference_mode():
        query = pool.ln_q(pool.query)[0]
        expected = pool.attn.out_proj(attended(pool.ln_k(tokens_TC), matrices, query))
        torch.testing.assert_close(pool(tokens_TC[None])[0], expected)


def test_the_pooler_of_conch_v1_5() -> None:
    network: Any = tiny(conch_v1_5)
    pool = network.attn_pool_contrast
    tokens_TC = torch.randn(30, 48)
    matrices = [pool.to_q.weight, *pool.to_kv.weight.chunk(2)]
    with torch.inference_mode():
        query = pool.ln_q(pool.query)[0]
        expected = pool.to_out(attended(pool.ln_k(tokens_TC), matrices, query))
        torch.testing.assert_close(pool(tokens_TC[None])[0], expected)


@pytest.mark.parametrize("module", [conch_v1, conch_v1_5], ids=name_of)
def test_conch_pools_all_tokens_and_normalises_with_its_own_layer(module: ModuleType) -> None:
    network: Any = tiny(module)
    batch = images(2, 448)
    with torch.inference_mode():
        tokens = network.trunk(batch)
        assert tokens.shape == (2, 1 + 28 * 28, 48)
        expected = network.ln_contrast(network.attn_pool_contrast(tokens))
        torch.testing.assert_close(network(batch), expected)


def test_positions_of_a_smaller_grid_become_those_of_448_px() -> None:
    state = hub_names(conch_v1_5, tiny(conch_v1_5))
    small = torch.randn(1, 1 + 14 * 14, 48)
    network: Any = loaded(conch_v1_5, {**state, "trunk.pos_embed": small})
    expected = resized_positions(small, (28, 28), extra=0.1)
    assert torch.equal(network.trunk.pos_embed, expected)
    assert torch.equal(expected[:, 0], small[:, 0])


def cubic(distance: float) -> float:
    """Keys' kernel with torch's a = -3/4."""
    a, x = -0.75, abs(distance)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def test_positions_are_resampled_as_dino_does_it() -> None:
    grid_HW = torch.rand(14, 14, dtype=torch.float64)
    positions = torch.cat([torch.tensor([99.0]), grid_HW.flatten()])[None, :, None]
    assert resized_positions(positions, (14, 14), extra=0.1) is positions
    moved = resized_positions(positions, (28, 28), extra=0.1)[0, 1:, 0].reshape(28, 28)
    for row, column in ((10, 6), (13, 20), (20, 9)):
        y, x = ((place + 0.5) / (28.1 / 14) - 0.5 for place in (row, column))
        expected = sum(
            float(grid_HW[j, i]) * cubic(j - y) * cubic(i - x) for j in range(14) for i in range(14)
        )
        assert float(moved[row, column]) == pytest.approx(expected, abs=1e-9)


BICUBIC = transforms.InterpolationMode.BICUBIC
BILINEAR = transforms.InterpolationMode.BILINEAR
STEPS: dict[ModuleType, list[Any]] = {
    uni_v1: [transforms.Resize(224, BILINEAR)],
    uni2_h: [transforms.Resize(224, BILINEAR)],
    virchow2: [transforms.Resize(224, BICUBIC)],
    gigapath: [transforms.Resize(256, BICUBIC), transforms.CenterCrop(224)],
    conch_v1: [transforms.Resize(448, BICUBIC), transforms.CenterCrop(448)],
    conch_v1_5: [transforms.Resize(448, BILINEAR), transforms.CenterCrop(448)],
}
"""The transforms of the model cards."""


@pytest.mark.parametrize("module", STEPS, ids=name_of)
def test_patches_are_prepared_as_the_card_says(module: ModuleType) -> None:
    pixels, card = patches(2, 512), module.CARD
    config = EncoderConfig(name=name_of(module))
    info = encoder_info(config, card, patch_px=512, precision="fp32", label="", sha256="0")
    what_it_sees = nn.Flatten()
    found = TorchEncoder(info, what_it_sees, "cpu").encode(pixels)

    steps = [*STEPS[module], transforms.ToTensor(), transforms.Normalize(card.mean, card.std)]
    prepare = transforms.Compose(steps)
    expected = torch.stack([prepare(Image.fromarray(patch)).flatten() for patch in pixels]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
