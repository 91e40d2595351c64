"""The work of an inference, against counts made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.runtime.spec import ModelSpec
from lavolta.runtime.work import dense_cells, work_of

SPEC = ModelSpec("tiny", layers=2, hidden=6, heads=2, ffn=10, vocab=50, max_tokens=8, types=2, outputs=3)


def test_counts_by_hand_at_odd_sizes() -> None:
    # Cells of 4 rows: 6 rows are 2 bands (8 rows run), 10 rows are 3 bands (12 rows run).
    cells = dense_cells(SPEC, 4)
    assert cells["layers.0.attention.query"] == 2 * 6
    assert cells["layers.1.ffn.up"] == 3 * 6
    assert cells["layers.1.ffn.down"] == 2 * 10
    work = work_of(SPEC, cells, 4, tokens=5)
    per_layer = 4 * 12 + 18 + 20
    assert work.kept_macs == 2 * per_layer * 4 * 5
    # 4 values of 4 bytes and a 2-byte column per cell, and 4 bytes of bias per row.
    assert work.kept_bytes == 2 * per_layer * 18 + 2 * (4 * 6 + 10 + 6) * 4
    assert work.kept_macs == sum(linear.kept_macs for linear in work.linears)
    # Attention 2 x 25 x 6, softmax 8 x 25 x 2, two norms 2 x 4 x 5 x 6, GELU 12 x 5 x 10;
    # embedding 5 x 6 x (1 + 1 + 4); head 18.
    assert work.rest_macs == 2 * (300 + 400 + 240 + 600) + 180 + 18
    # 5 rows of 3 tables, norms of 2 layers and of the embedding, head.
    assert work.rest_bytes == 4 * (15 * 6 + 2 * 6 * 5 + 18)


def test_int8_layers_stream_a_byte_a_weight() -> None:
    cells = dense_cells(SPEC, 4)
    name = "layers.1.ffn.up"
    plain, work = work_of(SPEC, cells, 4, 5), work_of(SPEC, cells, 4, 5, int8=[name])
    assert (work.kept_macs, work.rest_bytes) == (plain.kept_macs, plain.rest_bytes)
    assert work.int8_macs == 18 * 4 * 5
    # 18 cells of 4 rows lose 3 bytes a weight; 10 rows gain a scale.
    assert plain.kept_bytes - work.kept_bytes == 18 * 4 * 3 - 10 * 4
    assert work_of(SPEC, cells, 4, 5, int8=cells).int8_macs == plain.kept_macs


def test_options_of_the_model_count() -> None:
    cells = dense_cells(SPEC, 1)
    base = work_of(SPEC, cells, 1, 8)
    causal = ModelSpec(**{**SPEC.as_dict(), "causal": True})
    per_token = ModelSpec(**{**SPEC.as_dict(), "pooling": "none"})
    head = ModelSpec(**{**SPEC.as_dict(), "head_dense": "tanh"})
    # 64 pairs of tokens become 36: 28 fewer in each of 2 layers, 2 x 6 + 8 x 2 operations each.
    assert base.rest_macs - work_of(causal, cells, 1, 8).rest_macs == 2 * 28 * (12 + 16)
    assert work_of(per_token, cells, 1, 8).rest_macs - base.rest_macs == 7 * 18
    assert work_of(head, cells, 1, 8).rest_macs - base.rest_macs == 36
    assert work_of(SPEC, dict.fromkeys(cells, 0), 1, 8).kept_macs == 0


def test_a_decoder_by_hand() -> None:
    spec = ModelSpec(
        "decoder", layers=1, hidden=8, heads=4, kv_heads=2, ffn=5, vocab=9, max_tokens=8, norm="rms", norm_first=True,
        position="rope", ffn_gate=True, activation="silu", causal=True, embedding_norm=False, pooling="none", outputs=9,
    )  # fmt: skip
    cells = dense_cells(spec, 1)
    assert cells["layers.0.attention.key"] == 4 * 8
    work = work_of(spec, cells, 1, tokens=3)
    assert work.kept_macs == 3 * (2 * 64 + 2 * 32 + 3 * 40)
    # 6 pairs: attention 2 x 6 x 8, softmax 8 x 6 x 4, two norms 2 x 4 x 3 x 8, SiLU and gate 13 x 3 x 5, rotation of
    # (4 + 2) heads of 2 features 2 x 3 x 12; the last norm 4 x 3 x 8; head 72 a token.
    assert work.rest_macs == 96 + 192 + 192 + 195 + 72 + 96 + 3 * 72
    # 3 rows of words, 3 norms without bias, head.
    assert work.rest_bytes == 4 * (3 * 8 + 3 * 8 + 72)
    packed = work_of(spec, dense_cells(spec, 1, packed_head=True), 1, tokens=3)
    assert packed.kept_macs - work.kept_macs == work.rest_macs - packed.rest_macs == 3 * 72


@given(st.sampled_from([1, 2, 4, 8, 16]), st.integers(1, 8))
def test_work_grows_with_tokens_and_cells(cell_rows: int, tokens: int) -> None:
    cells = dense_cells(SPEC, cell_rows)
    work = work_of(SPEC, cells, cell_rows, tokens)
    fewer = work_of(SPEC, {name: count // 2 for name, count in cells.items()}, cell_rows, tokens)
    assert fewer.kept_macs <= work.kept_macs
    assert fewer.rest_macs == work.rest_macs
    if tokens > 1:
        assert work_of(SPEC, cells, cell_rows, tokens - 1).rest_macs < work.rest_macs


def test_wrong_cells_and_tokens() -> None:
    cells = dense_cells(SPEC, 4)
    for tokens in (0, 9):
        with pytest.raises(UserInputError, match="give 1 to 8"):
            work_of(SPEC, cells, 4, tokens)
    with pytest.raises(UserInputError, match=r"differ in layers\.9"):
        work_of(SPEC, {**cells, "layers.9": 1}, 4, 1)
    with pytest.raises(UserInputError, match=r"differ in layers\.0\.ffn\.up"):
        work_of(SPEC, {name: count for name, count in cells.items() if name != "layers.0.ffn.up"}, 4, 1)
    with pytest.raises(UserInputError, match="keeps 13 cells; it has 12"):
        work_of(SPEC, {**cells, "layers.0.attention.query": 13}, 4, 1)
