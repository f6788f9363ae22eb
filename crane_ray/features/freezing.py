"""Convolutional networks made ready for inference on CPUs: the work of a compiler, without one.

Batch normalisation is folded into the convolution before it; ReLU, and the sum of a residual
block, run inside of oneDNN's convolution instead of passing over memory again. Weights lie in
channels_last order and in the precision that is computed in. The same graph that inductor's
freezing makes of ResNet50, at the same speed, at once and without a C++ compiler.
"""

import copy
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

RELUS = frozenset({torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu_})
SUMS = frozenset({operator.add, operator.iadd, torch.add})


class FusedConvolution(nn.Module):
    """Convolution, with what follows it: a sum with another tensor, a ReLU."""

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype, *, relu: bool) -> None:
        super().__init__()
        weight = convolution.weight.detach().to(dtype)
        self.weight = nn.Parameter(weight.to(memory_format=torch.channels_last), False)
        bias = convolution.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(dtype), False)
        self._padding = [int(pad) for pad in convolution.padding]
        self._stride, self._dilation = list(convolution.stride), list(convolution.dilation)
        self._groups = convolution.groups
        self._relu = "relu" if relu else None
        self.overwrites = False
        """True where nobody reads the other tensor afterwards: the sum may take its place."""

    def forward(self, images: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, H, W) -> (B, D, H', W'); ``other`` (B, D, H', W') is added before the ReLU."""
        pointwise = torch.ops.mkldnn._convolution_pointwise
        shape = (self._padding, self._stride, self._dilation, self._groups)
        tensors = (self.weight, self.bias, *shape)
        result: torch.Tensor
        if other is None:
            result = pointwise(images, *tensors, self._relu or "none", [], "")
        elif self._is_like_the_result(images, other):
            after: tuple[Any, ...] = ("add", 1.0, self._relu, [], None)
            if self.overwrites and other.is_contiguous(memory_format=torch.channels_last):
                in_place = torch.ops.mkldnn._convolution_pointwise_
                result = in_place.binary(other, images, *tensors, *after)
            else:
                result = pointwise.binary(images, other, *tensors, *after)
        else:
            result = pointwise(images, *tensors, "none", [], "") + other
            result = torch.relu(result) if self._relu else result
        return result

    def _is_like_the_result(self, images: torch.Tensor, other: Any) -> bool:
        """True for what oneDNN can add: no number, no other type, nothing that is broadcast."""
        kernel = self.weight.shape[2:]
        steps = zip(self._padding, self._dilation, kernel, self._stride, strict=True)
        sides = (
            (side + 2 * pad - spread * (taps - 1) - 1) // step + 1
            for side, (pad, spread, taps, step) in zip(images.shape[2:], steps, strict=True)
        )
        return (
            isinstance(other, torch.Tensor)
            and other.dtype == self.weight.dtype
            and other.shape == (len(images), len(self.weight), *sides)
        )


def freeze_convolutions(network: nn.Module, dtype: torch.dtype) -> nn.Module | None:
    """A copy of the network in evaluation mode and ``dtype``, fused; None where it cannot be done.

    It cannot on CPUs without oneDNN (or, in bf16, without the instructions for it), and for
    networks that torch.fx cannot trace or that have no convolution to gain from.
    """
    if not _supported(dtype):
        return None
    training = {module: module.training for module in network.modules()}
    try:
        fused = _traced_and_fused(network.eval(), dtype)
    finally:
        for module, was in training.items():
            module.training = was
    # The trace shares the modules that were not fused with the network, which stays as it is.
    return None if fused is None else copy.deepcopy(fused).to(dtype).eval()


def _traced_and_fused(network: nn.Module, dtype: torch.dtype) -> fx.GraphModule | None:
    try:
        traced = fx.symbolic_trace(network)
    except Exception:  # whatever a network's own forward raises when it is traced
        return None
    fused = 0
    for node in list(traced.graph.nodes):
        if node.op == "call_module":
            convolution = traced.get_submodule(node.target)
            if type(convolution) is nn.Conv2d and _is_plain(node, convolution):
                fused += _fuse(traced, node, convolution, dtype)
    if not fused:
        return None
    _overwrite_what_is_used_up(traced)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _supported(dtype: torch.dtype) -> bool:
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or dtype not in {torch.float32, torch.bfloat16}:
        return False
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _is_plain(node: fx.Node, convolution: nn.Conv2d) -> bool:
    """True for a convolution of one tensor with zeros around it, and nothing hooked to it."""
    return (
        convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and not _has_hooks(convolution)
        and len(node.args) == 1
        and not node.kwargs
    )


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fuse(traced: fx.GraphModule, node: fx.Node, convolution: nn.Conv2d, dtype: Any) -> bool:
    """Puts one fused module in the place of a convolution and what follows it."""
    last = node
    after = _only_user(last)
    if after is not None and after.op == "call_module":
        norm = traced.get_submodule(str(after.target))
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            convolution = fuse_conv_bn_eval(convolution, norm)
            last = after
    other, relu = None, False
    after = _only_user(last)
    end = None if after is None else _only_user(after)
    if after is not None and _is_relu(traced, after):
        last, relu = after, True
    elif after is not None and end is not None and _is_relu(traced, end):
        other = _added(after, last)
        if other is not None and not _writes_between(traced, node, end, {last, after}):
            last, relu = end, True
        else:
            other = None
    if last is node:
        return False
    name = f"fused_{node.name}"  # of the node: a module may be called in several places
    while hasattr(traced, name):
        name += "_"
    traced.add_submodule(name, FusedConvolution(convolution, dtype, relu=relu))
    with traced.graph.inserting_before(node if other is None else last):
        arguments = (node.args[0],) if other is None else (node.args[0], other)
        new = traced.graph.call_module(name, arguments)
    last.replace_all_uses_with(new)
    _erase(traced.graph, last, node)
    return True


def _overwrite_what_is_used_up(traced: fx.GraphModule) -> None:
    """Lets a residual sum take the place of its summand where this is the last to read it.

    The summand must be a fused convolution's own result, and all who read it fused convolutions,
    too: then nothing else is a view of it.
    """
    place = {node: number for number, node in enumerate(traced.graph.nodes)}
    for node in traced.graph.nodes:
        convolution = _fused(traced, node)
        if convolution is None or len(node.args) < 2:
            continue
        images, other = node.args
        readers = list(other.users)
        convolution.overwrites = (
            images is not other
            and _fused(traced, images) is not None
            and _fused(traced, other) is not None
            and all(_fused(traced, reader) is not None for reader in readers)
            and all(place[reader] <= place[node] for reader in readers)
        )


def _fused(traced: fx.GraphModule, node: fx.Node) -> FusedConvolution | None:
    """The fused convolution that a node calls, if it does."""
    if node.op != "call_module":
        return None
    module = traced.get_submodule(str(node.target))
    return module if isinstance(module, FusedConvolution) else None


def _writes_between(
    traced: fx.GraphModule, first: fx.Node, last: fx.Node, chain: set[fx.Node]
) -> bool:
    """True where tensors may be overwritten between two nodes, so that no work may move there."""
    node = first.next
    while node is not last:
        if node not in chain and _writes(traced, node):
            return True
        node = node.next
    return False


def _writes(traced: fx.GraphModule, node: fx.Node) -> bool:
    """True for what may work in place: ``add_``, ``inplace=True`` (``+=`` is traced as a sum)."""
    if node.op == "call_module":
        return bool(getattr(traced.get_submodule(str(node.target)), "inplace", False))
    if node.op not in {"call_function", "call_method"}:
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return (
        (name.endswith("_") and not name.endswith("__"))
        or any(argument is True for argument in (*node.args, *node.kwargs.values()))
        or "out" in node.kwargs
    )


def _erase(graph: fx.Graph, last: fx.Node, first: fx.Node) -> None:
    """Removes the chain of nodes that ends in ``last`` and begins with ``first``."""
    chain = [first]
    while chain[-1] is not last:
        (following,) = chain[-1].users
        chain.append(following)
    for node in reversed(chain):
        graph.erase_node(node)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _added(node: fx.Node, one: fx.Node) -> fx.Node | None:
    """What a node adds to another; None where it is no sum of two different results."""
    tensors = [arg for arg in node.args if isinstance(arg, fx.Node)]
    is_sum = node.op == "call_function" and node.target in SUMS and not node.kwargs
    if not is_sum or not len(node.args) == len(set(tensors)) == 2:
        return None
    return next(arg for arg in tensors if arg is not one)


def _is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.ReLU)
    if node.op == "call_method":
        return node.target in {"relu", "relu_"}
    return node.op == "call_function" and node.target in RELUS
