"""What the manifest says is wrong: the model, the levels, the list of packed layers, the version."""

from __future__ import annotations

from bundle_parts import Change, Parts, set_manifest


def _swap_linears(parts: Parts) -> None:
    linears = parts.manifest["linears"]
    linears[0], linears[1] = linears[1], linears[0]


CHANGES: dict[str, Change] = {
    "manifest-invalid.no-levels": set_manifest("levels", value=[]),
    "manifest-invalid.too-many-levels": set_manifest("levels", value=[{"name": str(i)} for i in range(65)]),
    "manifest-invalid.levels-missing": set_manifest("levels", value=...),
    "manifest-invalid.level-without-name": set_manifest("levels", 1, "name", value=...),
    "manifest-invalid.two-levels-one-name": set_manifest("levels", 1, "name", value="L0"),
    "manifest-invalid.no-model": set_manifest("model", value=...),
    "manifest-invalid.model-is-a-list": set_manifest("model", value=[]),
    "manifest-invalid.hidden-zero": set_manifest("model", "hidden", value=0),
    "manifest-invalid.hidden-negative": set_manifest("model", "hidden", value=-4),
    "manifest-invalid.hidden-huge": set_manifest("model", "hidden", value=1 << 40),
    "manifest-invalid.hidden-a-string": set_manifest("model", "hidden", value="4"),
    "manifest-invalid.hidden-a-bool": set_manifest("model", "heads", value=True),
    "manifest-invalid.heads-do-not-divide": set_manifest("model", "heads", value=3),
    "manifest-invalid.three-types": set_manifest("model", "types", value=3),
    "manifest-invalid.unknown-activation": set_manifest("model", "activation", value="swish"),
    "manifest-invalid.unknown-pooling": set_manifest("model", "pooling", value="max"),
    "manifest-invalid.unknown-head": set_manifest("model", "head_dense", value="sigmoid"),
    "manifest-invalid.eps-negative": set_manifest("model", "norm_eps", value=-1.0),
    "manifest-invalid.causal-a-number": set_manifest("model", "causal", value=1),
    "manifest-invalid.cell-rows-3": set_manifest("cell_rows", value=3),
    "manifest-invalid.cell-rows-32": set_manifest("cell_rows", value=32),
    "manifest-invalid.linear-not-listed": set_manifest("linears", 0, "name", value="layers.0.attention.what"),
    "manifest-invalid.linear-of-another-shape": set_manifest("linears", 0, "in_features", value=5),
    "manifest-invalid.linears-swapped": _swap_linears,
    "manifest-invalid.linear-missing": set_manifest("linears", 5, value=...),
    "manifest-invalid.linear-a-number": set_manifest("linears", 5, value=7),
    "manifest-invalid.no-precision": set_manifest("linears", 0, "precision", value=...),
    "manifest-invalid.unknown-precision": set_manifest("linears", 0, "precision", value="int3"),
    "manifest-invalid.kv-heads-zero": set_manifest("model", "kv_heads", value=0),
    "manifest-invalid.more-kv-heads-than-heads": set_manifest("model", "kv_heads", value=4),
    "manifest-invalid.unknown-norm": set_manifest("model", "norm", value="batch"),
    "manifest-invalid.norm-first-a-number": set_manifest("model", "norm_first", value=0),
    "manifest-invalid.unknown-position": set_manifest("model", "position", value="alibi"),
    "manifest-invalid.gate-a-string": set_manifest("model", "ffn_gate", value="no"),
    "manifest-invalid.version-a-number": set_manifest("lavolta_version", value=1),
    "manifest-invalid.provenance-a-list": set_manifest("provenance", value=[]),
    "manifest-invalid.device-a-string": set_manifest("device", value="phone"),
    "manifest-invalid.name-a-number": set_manifest("model", "name", value=7),
    "manifest-invalid.format-a-string": set_manifest("format", value="4"),
    "version-unsupported.newer": set_manifest("format", value=5),
    "version-unsupported.older": set_manifest("format", value=3),
    "version-unsupported.first": set_manifest("format", value=1),
    "version-unsupported.zero": set_manifest("format", value=0),
    "strict.manifest-invalid.kept-cells-lie": set_manifest(
        "levels", 0, "kept_cells", "layers.0.attention.query", value=7
    ),
    "strict.manifest-invalid.kept-cells-missing": set_manifest("levels", 2, "kept_cells", value=...),
    "strict.manifest-invalid.sparsity-falls": set_manifest("levels", 2, "sparsity", value=0.1),
    "strict.manifest-invalid.unknown-field": set_manifest("model", "rotary", value=True),
    "strict.manifest-invalid.unknown-task": set_manifest("model", "task", value="vision"),
    "strict.manifest-invalid.sparsity-kind": set_manifest("sparsity", "kind", value="butterfly"),
}
