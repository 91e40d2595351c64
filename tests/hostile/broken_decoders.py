"""What only a decoder has: grouped heads, rotary frequencies, a gate, a packed output layer."""

from __future__ import annotations

from bundle_parts import Change, drop, set_entry, set_manifest, set_value

CHANGES: dict[str, Change] = {
    "manifest-invalid.kv-heads-do-not-divide": set_manifest("model", "kv_heads", value=3),
    "manifest-invalid.rope-with-odd-heads": set_manifest("model", "heads", value=8),
    "manifest-invalid.head-of-another-shape": set_manifest("linears", 7, "out_features", value=4),
    "manifest-invalid.linear-after-the-head": set_manifest("linears", 7, "name", value="layers.1.attention.query"),
    "tensor-missing.frequencies": drop("rope.inv_freq"),
    "tensor-missing.final-norm": drop("final_norm.weight"),
    "tensor-missing.packed-head": drop("linear.head.out.columns"),
    "tensor-missing.gate": drop("linear.layers.0.ffn.gate.values"),
    "tensor-shape.frequencies-column": set_entry("rope.inv_freq", shape=[1, 1]),
    "tensor-shape.key-of-all-heads": set_entry("linear.layers.0.attention.key.bias", shape=[4, 1]),
    "not-finite.nan-frequency": set_value("rope.inv_freq", 0, float("nan"), "<f4"),
    "index-out-of-range.head-column": set_value("linear.head.out.columns", 0, 8, "<u2"),
    "strict.manifest-invalid.kept-cells-without-head": set_manifest("levels", 1, "kept_cells", "head.out", value=...),
}
