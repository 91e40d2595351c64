"""Files whose bytes are wrong before or between the parts: cut ones, lengths, and text that is no strict JSON."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from bundle_parts import Parts, build, payload_of, raw


def broken_bytes(valid: Parts) -> dict[str, bytes]:
    """Name to bytes of every broken file that no change of the parts can give."""
    header, manifest, tensors = valid.header, valid.manifest, valid.tensors
    whole, payload = build(header, manifest, tensors), payload_of(header, tensors)
    length = 8 + int.from_bytes(whole[:8], "little")
    text = whole[8:length]
    plain = json.dumps(header).encode()
    return {
        "truncated.empty": b"",
        "truncated.seven-bytes": whole[:7],
        "truncated.inside-header": whole[: length - 5],
        "truncated.header-only": whole[:length],
        "truncated.last-byte": whole[:-1],
        "offsets-invalid.trailing-bytes": whole + b"\0",
        "offsets-invalid.hole-at-start": build(_shifted(header, 8), manifest, tensors) + bytes(8),
        "header-too-large.huge": (1 << 63).to_bytes(8, "little") + text,
        "header-too-large.text-file": b"Dear reader, this is a letter and not a bundle.\n",
        "header-too-large.pickle": b"PK\x03\x04" + bytes(range(64)),
        "not-a-bundle.no-brace": raw(b"[" + text[1:], payload),
        "not-a-bundle.no-header": raw(b"", payload),
        "header-not-json.cut-brace": raw(text[:-1] + b" ", payload),
        "header-not-json.not-utf8": raw(text.replace(b"tiny", b"\xff\xfe\xfd\xfc", 1), payload),
        "header-not-json.key-twice": raw(text[:-1] + b', "embeddings.word": {}}', payload),
        "header-not-json.deep": raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", payload),
        "header-not-json.infinite-number": raw(text[:-1] + b', "x": 1e999}', payload),
        "header-not-json.half-a-surrogate-pair": raw(text[:-1] + b', "x": "\\ud800"}', payload),
        "header-not-json.half-a-surrogate-pair-in-a-key": raw(text[:-1] + b', "\\udc00": 1}', payload),
        "header-not-json.nan": raw(text[:-1] + b', "x": NaN}', payload),
        "manifest-missing.no-metadata": raw(plain, payload),
        "manifest-missing.other-metadata": raw(b'{"__metadata__":{"format":"pt"},' + plain[1:], payload),
        "manifest-invalid.an-object": raw(b'{"__metadata__":{"lavolta":{}},' + plain[1:], payload),
        "manifest-invalid.not-json": build(header, "{", tensors),
        "manifest-invalid.a-list": build(header, "[]", tensors),
        "manifest-invalid.deep": build(header, '{"format":4,"a":' + "[" * 100_000 + "]" * 100_000 + "}", tensors),
        "manifest-invalid.infinite-number": build(header, _with_provenance(manifest, "1e999"), tensors),
        "manifest-invalid.integer-beyond-a-double": build(header, _with_provenance(manifest, "1" + "0" * 400), tensors),
        "manifest-invalid.half-a-surrogate-pair": build(header, _with_provenance(manifest, '"\\ud800"'), tensors),
        "manifest-invalid.nan": build(header, json.dumps(manifest).replace("1e-12", "NaN"), tensors),
    }


def _with_provenance(manifest: dict[str, Any], value: str) -> str:
    """The manifest with a JSON text in a free field."""
    return json.dumps({**manifest, "provenance": {"x": 0}}).replace('{"x": 0}', f'{{"x": {value}}}')


def _shifted(header: dict[str, Any], by: int) -> dict[str, Any]:
    moved = deepcopy(header)
    for entry in moved.values():
        entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]
    return moved
