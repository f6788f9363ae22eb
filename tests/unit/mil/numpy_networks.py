"""The published formulas in plain numpy float64, on state dicts under the published keys.

Written from the description of the networks alone: nothing of the package is called.
N patches, D features, E embedding, H attention rows, C classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
State = Mapping[str, Array]


def linear(state: State, key: str, x: Array) -> Array:
    return x @ state[f"{key}.weight"].T + state[f"{key}.bias"]


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    result: Array = e / e.sum(axis=axis, keepdims=True)
    return result


def attention_scores(state: State, at: str, h: Array, *, gated: bool) -> Array:
    """(H, N)."""
    if gated:
        a = np.tanh(linear(state, f"{at}.attention_a.0", h))
        b = 1.0 / (1.0 + np.exp(-linear(state, f"{at}.attention_b.0", h)))
        return linear(state, f"{at}.attention_c", a * b).T
    last = "3" if f"{at}.module.3.weight" in state else "2"
    return linear(state, f"{at}.module.{last}", np.tanh(linear(state, f"{at}.module.0", h))).T


def crane(
    state: State, x: Array, num_tasks: int, *, dropout: bool, gated: bool = True
) -> tuple[list[Array], Array, Array]:
    """Logits of each task, scores (H, N), attention (H, N)."""
    second, at = ("attention_net.3", "attention_net.6") if dropout else (
        "attention_net.2", "attention_net.4")  # fmt: skip
    h = relu(linear(state, second, relu(linear(state, "attention_net.0", x))))
    scores = attention_scores(state, at, h, gated=gated)
    attention = softmax(scores, axis=1)
    logits = []
    for task in range(num_tasks):
        key = f"classifier_{task + 1}" if num_tasks > 1 else "classifier"
        logits.append(linear(state, key, attention[task] @ h))
    return logits, scores, attention


def clam(
    state: State, x: Array, *, branches: bool, dropout: bool, gated: bool = True
) -> tuple[Array, Array, Array, Array]:
    """Logits (C,), scores (H, N), attention (H, N), embeddings (N, E)."""
    h = relu(linear(state, "attention_net.0", x))
    at = "attention_net.3" if dropout else "attention_net.2"
    scores = attention_scores(state, at, h, gated=gated)
    attention = softmax(scores, axis=1)
    if branches:
        rows = [linear(state, f"classifiers.{c}", attention[c] @ h)[0] for c in range(len(scores))]
        return np.array(rows), scores, attention, h
    return linear(state, "classifiers", attention[0] @ h), scores, attention, h


def smooth_svm(logits: Array, label: int) -> float:
    """Berrada et al. 2018, k = 1, temperature 1, margin 1: by the definition."""
    others = [s + 1.0 for j, s in enumerate(logits) if j != label]
    return float(np.log(np.sum(np.exp([*others, logits[label]]))) - logits[label])


def cross_entropy(logits: Array, label: int) -> float:
    return float(-np.log(softmax(logits)[label]))


def instance_loss(
    state: State, attention: Array, h: Array, label: int, num_classes: int, *, b: int,
    subtyping: bool, kind: str,
) -> float:  # fmt: skip
    """The sum over classes, as CLAM clusters the patches of one bag."""
    loss = {"svm": smooth_svm, "ce": cross_entropy}[kind]
    k, total = min(b, len(h)), 0.0
    for c in range(num_classes):
        row = attention[c] if len(attention) > 1 else attention[0]
        order = np.argsort(-row, kind="stable")
        top, bottom = order[:k], order[-k:]
        key = f"instance_classifiers.{c}"
        if c == label:
            losses = [loss(z, 1) for z in linear(state, key, h[top])]
            losses += [loss(z, 0) for z in linear(state, key, h[bottom])]
        elif subtyping:
            losses = [loss(z, 0) for z in linear(state, key, h[top])]
        else:
            continue
        total += float(np.mean(losses))
    return total / num_classes if subtyping else total


def max_pool(state: State, x: Array, num_classes: int) -> tuple[Array, int]:
    """Logits (C,), and the patch that decides."""
    key = "classifier" if num_classes == 2 else "classifiers"
    logits = linear(state, key, relu(linear(state, "fc.0", x)))
    p = softmax(logits)
    patch = (
        int(np.argmax(p[:, 1]))
        if num_classes == 2
        else int(np.unravel_index(p.argmax(), p.shape)[0])
    )
    return logits[patch], patch


def mean_pool(state: State, x: Array, num_tasks: int) -> list[Array]:
    h = relu(linear(state, "embedding.0", x)).mean(axis=0)
    keys: Sequence[str] = [f"classifier_{t + 1}" for t in range(num_tasks)]
    return [linear(state, key, h) for key in (keys if num_tasks > 1 else ["classifier"])]
