"""Files of networks: published state dicts made by hand, and ours, read back."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

from crane_ray.cohort.tasks import TaskSpec, load_task_set
from crane_ray.errors import ConfigError, StorageError
from crane_ray.mil.aggregator import build_aggregator
from crane_ray.mil.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, save_published
from crane_ray.mil.configs import ModelConfig
from tests.unit.mil import numpy_networks as reference

Array = npt.NDArray[np.float64]
State = dict[str, Array]
DIM = 20


def weights(shapes: Mapping[str, tuple[int, int]], seed: int = 0) -> State:
    """Linears of (outputs, inputs)."""
    rng = np.random.default_rng(seed)
    state: State = {}
    for key, (outputs, inputs) in shapes.items():
        state[f"{key}.weight"] = rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)
        state[f"{key}.bias"] = 0.3 * rng.normal(size=outputs)
    return state


def gated(at: str, width: int, rows: int, hidden: int = 512) -> dict[str, tuple[int, int]]:
    return {
        f"{at}.attention_a.0": (width, hidden),
        f"{at}.attention_b.0": (width, hidden),
        f"{at}.attention_c": (rows, width),
    }


def crane(*num_classes: int, dropout: bool = True, width: int = 384, hidden: int = 512) -> State:
    second, at = (3, 6) if dropout else (2, 4)
    names = [f"classifier_{place + 1}" for place in range(len(num_classes))]
    heads = dict(zip(names if len(names) > 1 else ["classifier"], num_classes, strict=True))
    return weights(
        {
            "attention_net.0": (hidden, DIM),
            f"attention_net.{second}": (hidden, hidden),
            **gated(f"attention_net.{at}", width, len(num_classes), hidden),
            **{name: (classes, hidden) for name, classes in heads.items()},
        }
    )


def clam(classes: int, *, branches: bool = False, dropout: bool = True, width: int = 256) -> State:
    at = "attention_net.3" if dropout else "attention_net.2"
    heads = {f"classifiers.{c}": (1, 512) for c in range(classes)}
    return weights(
        {
            "attention_net.0": (512, DIM),
            **gated(at, width, classes if branches else 1),
            **(heads if branches else {"classifiers": (classes, 512)}),
            **{f"instance_classifiers.{c}": (2, 512) for c in range(classes)},
        }
    )


def write(file: Path, state: Mapping[str, Any], *, dtype: torch.dtype = torch.float64) -> str:
    torch.save({key: torch.from_numpy(value).to(dtype) for key, value in state.items()}, file)
    return str(file)


def renamed(state: State, rename: Callable[[str], str]) -> State:
    return {rename(key): value for key, value in state.items()}


def bag(num_patches: int = 30) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(num_patches, DIM)))


def require_logits(found: Checkpoint, expected: list[Array], tolerance: float = 1e-6) -> None:
    x = bag().to(next(found.network.parameters()).dtype)
    logits = found.network(x).logits
    assert tuple(logits) == tuple(task.name for task in found.tasks)
    for one, two in zip(logits.values(), expected, strict=True):
        assert np.abs(one[0].detach().numpy() - two).max() < tolerance


@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("num_classes", [(2, 2, 2), (2,), (3, 4)])
@pytest.mark.parametrize(("width", "size"), [(384, "big"), (256, "small"), (100, None)])
def test_a_crane_file_loads(
    tmp_path: Path, num_classes: tuple[int, ...], dropout: bool, width: int, size: str | None
) -> None:
    state = crane(*num_classes, dropout=dropout, width=width)
    found = load_checkpoint(write(tmp_path / "s_0_checkpoint.pt", state))
    logits, _, _ = reference.crane(state, bag().numpy(), len(num_classes), dropout=dropout)
    require_logits(found, logits)
    assert (found.format, found.config.name, found.dim) == ("crane", "crane", DIM)
    assert found.config.dropout == (0.25 if dropout else 0)
    assert (found.config.size, found.config.attention_dim) == (size, None if size else width)
    assert tuple(task.num_classes for task in found.tasks) == num_classes
    assert not found.network.training
    assert found.provenance["file"] == "s_0_checkpoint.pt"


def test_three_binary_heads_are_cranes_assessment(tmp_path: Path) -> None:
    found = load_checkpoint(write(tmp_path / "a.pt", crane(2, 2, 2)))
    assert found.tasks == load_task_set("cardiac-mtl").tasks
    found = load_checkpoint(write(tmp_path / "b.pt", crane(2, 2)))
    assert [task.name for task in found.tasks] == ["task1", "task2"]
    assert found.tasks[0].classes == ("class0", "class1")


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_clam_file_loads(tmp_path: Path, branches: bool, dropout: bool, classes: int) -> None:
    state = clam(classes, branches=branches, dropout=dropout)
    found = load_checkpoint(write(tmp_path / "s.pt", state))
    logits, _, attention, h = reference.clam(
        state, bag().numpy(), branches=branches, dropout=dropout
    )
    require_logits(found, [logits])
    assert (found.format, found.config.size) == ("clam", "small")
    assert found.config.name == ("clam_mb" if branches else "clam_sb")
    assert found.config.dropout == (0.25 if dropout else 0)
    loss = found.network.auxiliary_loss(found.network(bag()), torch.tensor([1]))
    assert loss is not None
    expected = reference.instance_loss(
        state, attention, h, 1, classes, b=8, subtyping=False, kind="svm"
    )
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_a_file_from_a_gpu_loads_without_one(tmp_path: Path) -> None:
    """The place of each tensor is a text in the archive; a GPU's is put there by hand."""
    state = crane(2)
    path = write(tmp_path / "cpu.pt", state)
    places = (b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "cuda.pt", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            changed = content.replace(*places) if name.endswith("data.pkl") else content
            assert (changed != content) == name.endswith("data.pkl")
            new.writestr(name, changed)
    logits, *_ = reference.crane(state, bag().numpy(), 1, dropout=True)
    require_logits(load_checkpoint(str(tmp_path / "cuda.pt")), logits)


DISGUISES: dict[str, Callable[[str], str]] = {
    "data parallel attention": lambda key: key.replace("attention_net.", "attention_net.module."),
    "data parallel network": lambda key: f"module.{key}",
    "both": lambda key: "module." + key.replace("attention_net.", "attention_net.module."),
    "twice": lambda key: key.replace("attention_net.", "attention_net.module.module."),
    "inner": lambda key: key.replace(".attention_a.0.", ".attention_a.module.0."),
    "lightning": lambda key: f"model.{key}",
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("whose", ["crane", "clam"])
def test_data_parallel_files_load(tmp_path: Path, disguise: str, whose: str) -> None:
    state = crane(2, 2, 2) if whose == "crane" else clam(2)
    disguised = renamed(state, DISGUISES[disguise])
    disguised["instance_loss_fn.labels"] = np.array([0.0, 1.0])
    plain = load_checkpoint(write(tmp_path / "plain.pt", state))
    found = load_checkpoint(write(tmp_path / "disguised.pt", disguised))
    assert (found.config, found.tasks) == (plain.config, plain.tasks)
    for key, tensor in plain.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[key], tensor)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "network"])
def test_wrapped_state_dicts_load(tmp_path: Path, wrapper: str) -> None:
    state = {key: torch.from_numpy(value) for key, value in clam(2).items()}
    torch.save({"epoch": 7, wrapper: state, "lr": 1e-4}, tmp_path / "w.pt")
    assert load_checkpoint(str(tmp_path / "w.pt")).config.name == "clam_sb"


@pytest.mark.parametrize("kept", [True, False], ids=["module", "without module"])
@pytest.mark.parametrize(
    ("at", "last", "dropout"), [(3, 3, 0.25), (2, 2, 0), (3, 2, 0)],
    ids=["dropout", "no dropout", "dropout of share 0"],
)  # fmt: skip
def test_plain_attention_loads(
    tmp_path: Path, at: int, last: int, dropout: float, kept: bool
) -> None:
    key = f"attention_net.{at}.module" if kept else f"attention_net.{at}"
    heads: dict[str, tuple[int, int]] = {
        "classifiers": (2, 512), **{f"instance_classifiers.{c}": (2, 512) for c in range(2)},
    }  # fmt: skip
    state = weights(
        {"attention_net.0": (512, DIM), f"{key}.0": (256, 512), f"{key}.{last}": (1, 256), **heads}
    )
    found = load_checkpoint(write(tmp_path / "p.pt", state))
    assert not found.config.gated
    assert found.config.dropout == dropout
    canonical = renamed(
        state,
        lambda name: name.replace(f"{key}.", f"attention_net.{3 if dropout else 2}.module."),
    )
    if last == 2 and at == 3:
        assert "attention_net.2.module.2.weight" in canonical
    expected, *_ = reference.clam(
        canonical, bag().numpy(), branches=False, dropout=bool(dropout), gated=False
    )
    require_logits(found, [expected])


def test_instance_classifiers_may_be_missing(tmp_path: Path) -> None:
    state = {key: value for key, value in clam(3).items() if "instance" not in key}
    found = load_checkpoint(write(tmp_path / "p.pt", state))
    assert not found.config.instances.enabled
    logits, *_ = reference.clam(state, bag().numpy(), branches=False, dropout=True)
    require_logits(found, [logits])


MAX_POOL = {
    "fc and classifier": ({"fc.0": (512, DIM), "classifier": (2, 512)}, 0.25),
    "fc and fc.3": ({"fc.0": (512, DIM), "fc.3": (2, 512)}, 0.25),
    "fc and fc.2": ({"fc.0": (512, DIM), "fc.2": (2, 512)}, 0),
    "classifier.3": ({"classifier.0": (512, DIM), "classifier.3": (2, 512)}, 0.25),
    "classifier.2": ({"classifier.0": (512, DIM), "classifier.2": (2, 512)}, 0),
    "classifiers": ({"fc.0": (512, DIM), "classifiers": (4, 512)}, 0.25),
    "one a class": ({"fc.0": (512, DIM), **{f"classifiers.{c}": (1, 512) for c in range(3)}}, 0.25),
}


@pytest.mark.parametrize("layout", MAX_POOL)
def test_max_pooling_loads(tmp_path: Path, layout: str) -> None:
    shapes, dropout = MAX_POOL[layout]
    state = weights(shapes)
    found = load_checkpoint(write(tmp_path / "m.pt", state))
    assert (found.config.name, found.format) == ("max_pool", "clam")
    assert found.config.dropout == dropout
    classes = found.tasks[0].num_classes
    layer, *heads = shapes
    key = "classifier" if classes == 2 else "classifiers"
    parts = {
        part: np.concatenate([state[f"{head}.{part}"] for head in heads])
        for part in ("weight", "bias")
    }
    plain = {f"fc.0.{part}": state[f"{layer}.{part}"] for part in parts}
    plain |= {f"{key}.{part}": value for part, value in parts.items()}
    require_logits(found, [reference.max_pool(plain, bag().numpy(), classes)[0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_smaller_types_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = clam(2)
    found = load_checkpoint(write(tmp_path / "h.pt", state, dtype=dtype))
    assert {value.dtype for value in found.network.parameters()} == {torch.float32}
    tensor = found.network.state_dict()["classifiers.weight"]
    assert torch.equal(tensor.to(dtype), torch.from_numpy(state["classifiers.weight"]).to(dtype))


def test_loading_draws_nothing_from_the_generator(tmp_path: Path) -> None:
    path = write(tmp_path / "s.pt", clam(2))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_checkpoint(path)
    assert torch.equal(torch.rand(3), expected)


def test_tasks_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.pt", clam(2))
    tasks = load_task_set("task_1_tumor_vs_normal").tasks
    found = load_checkpoint(path, tasks=tasks)
    assert found.tasks == tasks
    assert found.network.heads == ("tumor",)
    with pytest.raises(ConfigError, match=r"heads of 2 classes, the tasks are subtype \(3\)"):
        load_checkpoint(path, tasks=load_task_set("task_2_tumor_subtyping").tasks)


def _without(key: str) -> State:
    state = crane(2, 2, 2)
    del state[key]
    return state


MISFITS: dict[str, tuple[State, str]] = {
    "other network": (weights({"conv1": (3, 3), "layer.1": (2, 2)}), r"conv1\.weight.*known are"),
    "one key too many": (
        crane(2, 2, 2) | weights({"norm": (4, 4)}), r"norm\.weight is of no use, norm\.bias"),
    "one key less": (_without("classifier_2.bias"), r"classifier_2\.bias is missing"),
    "a head less": (_without("classifier_2.weight"), r"classifier_3\.bias is of no use"),
    "no attention": (weights({"attention_net.0": (512, DIM), "classifier": (2, 512)}),
                     "attention_net has weights at 0, 0; known"),
    "no classifier": (
        weights({"attention_net.0": (512, DIM), **gated("attention_net.3", 256, 1)}),
        r"classifier\.weight is missing; known"),
    "odd place": (
        weights({"attention_net.0": (512, DIM), **gated("attention_net.5", 256, 1)}), "at 0, 5"),
    "shape": (
        clam(2) | weights({"classifiers": (2, 100)}),
        r"classifiers\.weight is \(2, 100\), \(2, 512\) expected"),
    "vector": (clam(2) | {"attention_net.0.weight": np.zeros(4)}, r"is \(4,\); the weights of"),
    "nan": (clam(2) | {"classifiers.bias": np.array([0, np.nan])}, "classifiers.bias.*diverged"),
    "twice": (
        clam(2) | renamed(weights({"classifiers": (2, 512)}), "module.{}".format), "there twice"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISFITS)
def test_what_does_not_fit_is_named(tmp_path: Path, what: str) -> None:
    state, message = MISFITS[what]
    path = write(tmp_path / "x.pt", state)
    with pytest.raises(ConfigError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"checkpoint {path}: ")


class _Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_objects_are_never_loaded(tmp_path: Path, legacy: bool) -> None:
    trap, file = tmp_path / "sprung", tmp_path / "evil.pt"
    if legacy:
        file.write_bytes(pickle.dumps(_Trap(trap)))
    else:
        torch.save({"state_dict": _Trap(trap)}, file)
    with pytest.raises(ConfigError, match="pickled objects, which are never loaded"):
        load_checkpoint(str(file))
    assert not trap.exists()


def _saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


BAD_FILES = {
    "empty": (b"", "cut short"),
    "text": (b"slide_id,label\nA,1\n", "cut short"),
    "half": (_saved({"a": torch.zeros(100)})[:300], "cut short"),
    "features": (_saved(torch.zeros(3, DIM)), "holds a Tensor, not the state dict"),
    "no tensors": (_saved({"epoch": 3, "loss": 0.1}), "epoch, loss is no tensor"),
    "no keys": (_saved({}), "it is empty"),
}


@pytest.mark.parametrize("what", BAD_FILES)
@pytest.mark.filterwarnings("error")
def test_a_bad_file_is_an_error_in_words(tmp_path: Path, what: str) -> None:
    content, message = BAD_FILES[what]
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(str(tmp_path / "bad.pt"))


def test_a_missing_file_is_an_error_of_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.pt"):
        load_checkpoint(str(tmp_path / "none.pt"))


OWN = [
    (ModelConfig(), (2, 2, 2)),
    (ModelConfig(name="mean_pool", hidden_dim=33, dropout=0.4), (3, 2)),
    (ModelConfig(name="max_pool"), (5,)),
    (ModelConfig(name="clam_mb", gated=False, attention_dim=17), (3,)),
    (ModelConfig(name="clam_sb", size="big", dropout=0), (2,)),
]


def tasks_of(num_classes: tuple[int, ...]) -> tuple[TaskSpec, ...]:
    return tuple(
        TaskSpec(name=f"T{i}", column=f"label {i}", classes=tuple("abcdefg"[:classes]), weight=2)
        for i, classes in enumerate(num_classes)
    )


@pytest.mark.parametrize(("config", "num_classes"), OWN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ours_is_read_back_bit_for_bit(
    tmp_path: Path, config: ModelConfig, num_classes: tuple[int, ...], dtype: torch.dtype
) -> None:
    tasks = tasks_of(num_classes)
    network = build_aggregator(config, DIM, tasks).to(dtype)
    path = str(tmp_path / "deep" / "s_0_checkpoint")
    provenance = {"features": "ab12", "fold": 0, "splits": ["ä"]}
    for _ in range(2):
        before = _contents(tmp_path / "deep")
        save_checkpoint(path, network, config, dim=DIM, tasks=tasks, provenance=provenance)
    assert before == _contents(tmp_path / "deep")
    assert sorted(before) == ["s_0_checkpoint.json", "s_0_checkpoint.safetensors"]
    found = load_checkpoint(f"{path}.safetensors")
    assert (found.config, found.dim, found.tasks) == (config, DIM, tasks)
    assert (found.format, found.provenance) == ("crane-ray", provenance)
    state = network.state_dict()
    assert list(found.network.state_dict()) == list(state)
    for key, tensor in found.network.state_dict().items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, state[key])


@pytest.mark.parametrize(("config", "num_classes"), OWN)
def test_our_state_dicts_are_understood_without_their_config(
    tmp_path: Path, config: ModelConfig, num_classes: tuple[int, ...]
) -> None:
    network = build_aggregator(config, DIM, tasks_of(num_classes)).eval()
    save_published(str(tmp_path / "s_0_checkpoint.pt"), network)
    found = load_checkpoint(str(tmp_path / "s_0_checkpoint.pt"), tasks=tasks_of(num_classes))
    assert found.config.name == config.name
    assert found.config.hidden_dim == config.hidden_dim
    x = bag().float()
    for task, logits in network(x).logits.items():
        assert torch.equal(found.network(x).logits[task], logits)
    raw = torch.load(tmp_path / "s_0_checkpoint.pt", weights_only=True)
    assert set(raw) == set(network.state_dict())


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*")}


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    config, tasks = ModelConfig(hidden_dim=8), tasks_of((2,))
    network = build_aggregator(config, DIM, tasks)
    save_checkpoint(
        str(tmp_path / "c"), network, config, dim=DIM, tasks=tasks, provenance={"fold": 1}
    )
    return tmp_path / "c.safetensors"


def test_the_file_is_complete_in_itself(ours: Path) -> None:
    beside = json.loads(ours.with_suffix(".json").read_text())
    assert beside["format_version"] == 1
    assert beside["model"]["hidden_dim"] == 8
    assert beside["provenance"] == {"fold": 1}
    ours.with_suffix(".json").unlink()
    assert load_checkpoint(str(ours)).provenance == {"fold": 1}


def test_ours_is_taken_for_the_tasks_it_was_trained_for_alone(ours: Path) -> None:
    (own,) = tasks_of((2,))
    elsewhere = own.model_copy(update={"column": "diagnosis", "aliases": {"A": "a"}})
    assert load_checkpoint(str(ours), tasks=[elsewhere]).tasks == (elsewhere,)
    for other in (
        own.model_copy(update={"classes": ("b", "a")}), own.model_copy(update={"name": "T9"})
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"was trained for T0 \(a, b\), the tasks are T"):
            load_checkpoint(str(ours), tasks=[other])


def test_damage_to_ours_is_told(ours: Path) -> None:
    data = ours.read_bytes()
    for content in (b"", data[:5], data[:200], data[:-1], b"\xff" * 64):
        ours.write_bytes(content)
        with pytest.raises(ConfigError, match="cut short"):
            load_checkpoint(str(ours))


def test_a_newer_format_is_refused(ours: Path) -> None:
    data = ours.read_bytes()
    ours.write_bytes(data.replace(rb"format_version\": 1", rb"format_version\": 2"))
    with pytest.raises(ConfigError, match="format version 2, this crane-ray reads 1"):
        load_checkpoint(str(ours))


def test_an_unknown_key_in_our_header_is_refused(ours: Path) -> None:
    ours.write_bytes(ours.read_bytes().replace(b"hidden_dim", b"hidden_dxm"))
    with pytest.raises(ConfigError, match=r"c\.safetensors: .*hidden_dxm: unknown key"):
        load_checkpoint(str(ours))


def test_published_weights_in_safetensors_load(tmp_path: Path) -> None:
    state = clam(2)
    file = tmp_path / "clam.safetensors"
    save_file({key: torch.from_numpy(value) for key, value in state.items()}, file)
    logits, *_ = reference.clam(state, bag().numpy(), branches=False, dropout=True)
    require_logits(load_checkpoint(str(file)), [logits])


def test_files_at_uris(tmp_path: Path) -> None:
    state = clam(2)
    uri = f"memory://checkpoints-{tmp_path.name}"
    config, tasks = ModelConfig(hidden_dim=8), tasks_of((2,))
    network = build_aggregator(config, DIM, tasks)
    save_checkpoint(f"{uri}/own", network, config, dim=DIM, tasks=tasks, provenance={})
    save_published(f"{uri}/own.pt", network)
    assert load_checkpoint(f"{uri}/own.safetensors").config == config
    assert load_checkpoint(f"{uri}/own.pt").config.hidden_dim == 8
    found = load_checkpoint(write(tmp_path / "s.pt", state))
    assert found.provenance["sha256"].startswith(found.fingerprint)
    assert len(found.fingerprint) == 16
