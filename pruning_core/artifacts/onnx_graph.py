"""Changes of a written ONNX graph that keep what it computes: the type of its stored weights, and sums that run faster.

The exporter widens all weights to float32, so that a checkpoint of two bytes a weight would have a graph of twice its size.
Here weights are stored in their own type again, each behind a Cast, which runtimes work out once when they load the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

if TYPE_CHECKING:
    import onnx_ir

Stored = Literal["float32", "float16", "bfloat16"]

# Values of a tensor that is worth a Cast of its own.
_LEAST = 1024


def store_(graph: onnx_ir.Graph, dtype: str, *, exact: bool) -> None:
    """Store the float32 weights of a graph in a type of two bytes, in place.

    Args:
        graph: The graph.
        dtype: float16 or bfloat16; float32 changes nothing.
        exact: Whether weights that would lose something stay in float32.
    """
    import onnx_ir as ir

    if dtype == "float32":
        return
    wanted = ir.DataType.FLOAT16 if dtype == "float16" else ir.DataType.BFLOAT16
    first = graph[0]
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _LEAST or value.is_graph_output():
            continue
        wide = tensor.numpy()
        with np.errstate(over="ignore"):
            narrow = wide.astype(wanted.numpy())
        back = narrow.astype(np.float32)
        if not np.isfinite(back).all() or (exact and not np.array_equal(back, wide)):
            continue
        kept = ir.Value(
            name=f"{name}.{dtype}",
            type=ir.TensorType(wanted),
            shape=ir.Shape(wide.shape),
            const_value=ir.Tensor(narrow, dtype=wanted, name=f"{name}.{dtype}"),
        )
        cast_ = ir.Node("", "Cast", [kept], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], name=f"widen.{name}")
        widened = cast_.outputs[0]
        widened.dtype, widened.shape = ir.DataType.FLOAT, ir.Shape(wide.shape)
        ir.convenience.replace_all_uses_with(value, widened)
        del graph.initializers[name]
        widened.name = name
        graph.initializers[kept.name or ""] = kept
        graph.insert_before(first, cast_)


def widen_(graph: onnx_ir.Graph) -> None:
    """Undo `store_`, in place: quantisers look for weights in float32."""
    import onnx_ir as ir

    for node in list(graph):
        kept = node.inputs[0] if node.op_type == "Cast" else None
        if kept is None or not kept.is_initializer() or kept.const_value is None:
            continue
        wide = kept.const_value.numpy().astype(np.float32)
        name = f"{node.outputs[0].name}.float32"
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape(wide.shape),
            const_value=ir.Tensor(wide, name=name),
        )
        ir.convenience.replace_all_uses_with(node.outputs[0], value)
        graph.remove(node, safe=True)
        del graph.initializers[cast("str", kept.name)]
        graph.initializers[name] = value


def plain_sums_(graph: onnx_ir.Graph) -> None:
    """Say sums in front of layer norms as Sum in place of Add, in place.

    onnxruntime fuses Add and LayerNormalization into one kernel, which on a CPU takes five times as long as the two.
    """
    for node in graph:
        if node.op_type != "LayerNormalization" or node.inputs[0] is None:
            continue
        before = cast("Any", node.inputs[0].producer())
        if before is not None and before.op_type == "Add":
            before.op_type = "Sum"
