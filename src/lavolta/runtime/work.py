"""Count the work of one inference of a model at one level."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lavolta.devices.work import LinearWork as LinearWork
from lavolta.devices.work import Work as Work
from lavolta.errors import UserInputError
from lavolta.runtime.spec import HEAD_LINEAR, ModelSpec
from lavolta.sparsity.cells import CellGrid

VALUE_BYTES = 4
INT8_BYTES = 1
COLUMN_BYTES = 2
# Numbers of four bytes per output row: the bias; for int8 the scale too.
ROW_NUMBERS = 1
INT8_ROW_NUMBERS = 2
# Element operations, counted as multiply-accumulates of the dense rest.
NORM_OPERATIONS = 4
SOFTMAX_OPERATIONS = 8
GELU_OPERATIONS = 12
RELU_OPERATIONS = 1


def work_of(
    spec: ModelSpec,
    kept_cells: Mapping[str, int],
    cell_rows: int,
    tokens: int,
    int8: Collection[str] = (),
) -> Work:
    """The work of one inference of ``tokens`` tokens (batch 1) at a level.

    Kept multiply-accumulates are ``kept cells * cell_rows * tokens``: a ragged last band runs its padding too. Weights
    and columns are streamed once. The dense rest is attention scores and values (halved by a causal mask), norms,
    softmax, activation, embedding rows and head.

    Args:
        kept_cells: prunable linear name to kept cells, for every linear of the model; with ``head.out`` where the
            output layer is packed.
        cell_rows: height of the cells.
        tokens: 1 to the model's ``max_tokens``.
        int8: names of the linears that are stored as int8; cells that only fill up a quad are not counted.

    Raises:
        UserInputError: a linear that is missing, unknown or keeps more cells than it has, or a bad number of tokens.
    """
    if not 1 <= tokens <= spec.max_tokens:
        raise UserInputError(f"{tokens} tokens do not fit {spec.name}; give 1 to {spec.max_tokens}.")
    packed_head = HEAD_LINEAR in kept_cells
    shapes = spec.linear_shapes(packed_head=packed_head and spec.outputs > 0)
    wrong = sorted(set(shapes) ^ set(kept_cells))
    if wrong:
        raise UserInputError(f"kept cells and the linears of {spec.name} differ in {', '.join(wrong[:3])}.")
    linears = []
    for name, (out_features, in_features) in shapes.items():
        grid = CellGrid(out_features, in_features, cell_rows)
        cells = kept_cells[name]
        if not 0 <= cells <= grid.cells:
            raise UserInputError(f"{name} keeps {cells} cells; it has {grid.cells}.")
        value_bytes, row_numbers = (INT8_BYTES, INT8_ROW_NUMBERS) if name in int8 else (VALUE_BYTES, ROW_NUMBERS)
        streamed_bytes = cells * (cell_rows * value_bytes + COLUMN_BYTES) + out_features * VALUE_BYTES * row_numbers
        linears.append(
            LinearWork(name, cells * cell_rows * tokens, streamed_bytes, in_features, out_features, name in int8)
        )
    return Work(
        cell_rows=cell_rows,
        tokens=tokens,
        kept_macs=sum(linear.kept_macs for linear in linears),
        kept_bytes=sum(linear.streamed_bytes for linear in linears),
        rest_macs=_rest_macs(spec, tokens, packed_head),
        rest_bytes=_rest_bytes(spec, tokens, packed_head),
        int8_macs=sum(linear.kept_macs for linear in linears if linear.name in int8),
        linears=tuple(linears),
    )


def dense_cells(spec: ModelSpec, cell_rows: int, *, packed_head: bool = False) -> dict[str, int]:
    """Kept cells of a level that keeps everything; with the output layer where it is packed."""
    shapes = spec.linear_shapes(packed_head=packed_head)
    return {name: CellGrid(out, into, cell_rows).cells for name, (out, into) in shapes.items()}


def _rest_macs(spec: ModelSpec, tokens: int, packed_head: bool) -> int:
    pairs = tokens * (tokens + 1) // 2 if spec.causal else tokens * tokens
    activation = (RELU_OPERATIONS if spec.activation == "relu" else GELU_OPERATIONS) + spec.ffn_gate
    rotation = 2 * tokens * (spec.heads + spec.kv_heads) * spec.head_size if spec.position == "rope" else 0
    per_layer = (
        2 * pairs * spec.hidden
        + SOFTMAX_OPERATIONS * pairs * spec.heads
        + 2 * NORM_OPERATIONS * tokens * spec.hidden
        + activation * tokens * spec.ffn
        + rotation
    )
    learned = spec.position == "learned"
    edge_norms = NORM_OPERATIONS * (spec.embedding_norm + spec.norm_first)
    edges = tokens * spec.hidden * (learned + bool(spec.types) + edge_norms)
    return spec.layers * per_layer + edges + _head_vectors(spec, tokens) * _head_weights(spec, packed_head)


def _rest_bytes(spec: ModelSpec, tokens: int, packed_head: bool) -> int:
    rows = tokens * (1 + (spec.position == "learned") + bool(spec.types))
    vectors = 1 if spec.norm == "rms" else 2
    norms = vectors * spec.hidden * (2 * spec.layers + spec.embedding_norm + spec.norm_first)
    return VALUE_BYTES * (rows * spec.hidden + norms + _head_weights(spec, packed_head))


def _head_vectors(spec: ModelSpec, tokens: int) -> int:
    return tokens if spec.pooling == "none" else 1


def _head_weights(spec: ModelSpec, packed_head: bool) -> int:
    out = 0 if packed_head else spec.hidden * spec.outputs
    return (spec.hidden * spec.hidden if spec.head_dense else 0) + out
