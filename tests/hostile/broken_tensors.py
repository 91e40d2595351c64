"""Tensors that are no packed layers: the header's entries, embedding, norms and head, the vocabulary."""

from __future__ import annotations

from bundle_parts import Change, Parts, drop, replace_entry, set_entry, set_value


def _overlap(parts: Parts) -> None:
    first, second = list(parts.header)[:2]
    size = parts.header[second]["data_offsets"][1] - parts.header[second]["data_offsets"][0]
    parts.header[second]["data_offsets"] = [
        parts.header[first]["data_offsets"][0],
        parts.header[first]["data_offsets"][0] + size,
    ]


def _vocab(text: bytes) -> Change:
    """A vocabulary in the place of the tokenizer."""

    def change(parts: Parts) -> None:
        drop("tokenizer")(parts)
        end = max(entry["data_offsets"][1] for entry in parts.header.values())
        parts.header["vocab"] = {"dtype": "U8", "shape": [len(text)], "data_offsets": [end, end + len(text)]}
        parts.tensors["vocab"] = text

    return change


CHANGES: dict[str, Change] = {
    "manifest-invalid.vocab-not-utf8": _vocab(b"<unk>\n<eos>\n\xff\n"),
    "manifest-invalid.vocab-half-a-surrogate-pair": _vocab(b"<unk>\n<eos>\n\xed\xa0\x80\n"),
    "tensor-missing.embedding": drop("embeddings.word"),
    "tensor-missing.head": drop("head.out.weight"),
    "tensor-shape.vocab-of-two-words": _vocab(b"<unk>\n<eos>\n"),
    "tensor-shape.vocab-of-four-words": _vocab(b"<unk>\n<eos>\none\ntwo\n"),
    "tensor-shape.empty-vocab": _vocab(b""),
    "tensor-shape.embedding-transposed": set_entry("embeddings.word", shape=[4, 3]),
    "tensor-shape.negative": set_entry("embeddings.word", shape=[-3, -4]),
    "tensor-shape.product-overflows": set_entry("embeddings.word", shape=[1 << 33, 1 << 33, 1 << 33]),
    "tensor-shape.a-float": set_entry("embeddings.word", shape=[3.0, 4]),
    "tensor-dtype.integers-for-floats": set_entry("embeddings.word", dtype="U32"),
    "tensor-dtype.unknown": set_entry("embeddings.word", dtype="F31"),
    "offsets-invalid.reversed": set_entry("embeddings.word", data_offsets=[48, 0]),
    "offsets-invalid.negative": set_entry("embeddings.word", data_offsets=[-48, 0]),
    "offsets-invalid.fractions": set_entry("embeddings.word", data_offsets=[0.5, 48.5]),
    "offsets-invalid.shape-too-small": set_entry("embeddings.word", shape=[2, 4]),
    "offsets-invalid.overlap": _overlap,
    "not-finite.nan-embedding": set_value("embeddings.word", 5, float("nan"), "<f4"),
    "not-finite.nan-norm": set_value("layers.0.ffn_norm.bias", 3, float("nan"), "<f4"),
    "header-not-json.entry-a-number": replace_entry("embeddings.word", 7),
    "header-not-json.entry-without-shape": replace_entry("embeddings.word", {"dtype": "F32", "data_offsets": [0, 48]}),
    "header-not-json.three-offsets": set_entry("embeddings.word", data_offsets=[0, 24, 48]),
}
