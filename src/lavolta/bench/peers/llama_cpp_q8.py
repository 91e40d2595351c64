"""llama.cpp with weights in Q8_0, on a GGUF file made from the same weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lavolta.bench.peers import Job, Loaded
from lavolta.bench.synthetic import random_ids
from lavolta.errors import UserInputError
from lavolta.runtime.spec import ModelSpec

_BATCH = 512
_KEPT: list[Any] = []


def load(job: Job) -> Loaded:
    """Write the GGUF file, load it, and read all tokens but the last.

    Raises:
        UserInputError: llama.cpp refuses the model.
    """
    import llama_cpp

    spec = ModelSpec.from_dict(job.spec)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_gguf(path, spec, load_file(job.model))
        llama_cpp.llama_backend_init()
        # llama.cpp calls it until the process ends: it must not be collected.
        _KEPT.append(llama_cpp.llama_log_callback(lambda *_: None))
        llama_cpp.llama_log_set(_KEPT[-1], None)
        options = llama_cpp.llama_model_default_params()
        # The file is gone when the model is used.
        options.use_mmap = False
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    if not model:
        raise UserInputError("llama.cpp cannot load the model that was written for it.")
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = max(job.tokens, 256)
    settings.n_batch = settings.n_ubatch = _BATCH
    settings.n_threads = settings.n_threads_batch = job.threads
    context = llama_cpp.llama_init_from_model(model, settings)
    if not context:
        raise UserInputError("llama.cpp cannot make a context for the model that was written for it.")
    ids = (llama_cpp.llama_token * job.tokens)(*random_ids(spec, job.tokens, job.seed).tolist())
    memory = llama_cpp.llama_get_memory(context)

    def decode(first: int, count: int) -> None:
        part = (llama_cpp.llama_token * count)(*ids[first : first + count])
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(part, count)) != 0:
            raise UserInputError(f"llama.cpp cannot decode {count} tokens behind {first}.")

    for first in range(0, job.tokens - 1, _BATCH):
        decode(first, min(_BATCH, job.tokens - 1 - first))

    def run() -> NDArray[np.float32]:
        llama_cpp.llama_memory_seq_rm(memory, 0, job.tokens - 1, -1)
        decode(job.tokens - 1, 1)
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        output: NDArray[np.float32] = np.ctypeslib.as_array(logits, shape=(spec.outputs,)).copy()
        return output

    said = llama_cpp.llama_print_system_info().decode()
    return Loaded(
        run, {"version": llama_cpp.__version__, "instruction_set": said.strip(), "amx": "AMX_INT8 = 1" in said}
    )


def write_gguf(path: Path, spec: ModelSpec, weights: dict[str, NDArray[np.float32]]) -> None:
    """A GGUF file of architecture ``gpt2`` or ``llama``: matrices in Q8_0, vectors in fp32, no vocabulary.

    Raises:
        UserInputError: a decoder of another kind.
    """
    import gguf

    llama = spec.position == "rope" and spec.ffn_gate and spec.norm == "rms" and spec.activation == "silu"
    if not llama and (spec.position == "rope" or spec.ffn_gate or spec.norm == "rms"):
        raise UserInputError(f"{spec.name} is neither of GPT-2's kind nor of Llama's; llama.cpp is not run on it.")
    writer = gguf.GGUFWriter(path, "llama" if llama else "gpt2")
    writer.add_context_length(spec.max_tokens)
    writer.add_embedding_length(spec.hidden)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.ffn)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_vocab_size(spec.vocab)
    writer.add_tokenizer_model("none")
    if llama:
        writer.add_layer_norm_rms_eps(spec.norm_eps)
        writer.add_rope_dimension_count(spec.head_size)
    else:
        writer.add_layer_norm_eps(spec.norm_eps)

    def put(name: str, array: NDArray[np.float32]) -> None:
        if array.ndim == 1 or name == "position_embd.weight":
            writer.add_tensor(name, np.ascontiguousarray(array, np.float32))
            return
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)

    for name, array in gguf_tensors(spec, weights, llama).items():
        put(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(
    spec: ModelSpec, weights: dict[str, NDArray[np.float32]], llama: bool
) -> dict[str, NDArray[np.float32]]:
    """Our tensors by llama.cpp's names, without the bias of the output layer, which it does not know."""
    found = {"token_embd.weight": weights["embeddings.word"], "output.weight": weights["head.out.weight"]}
    if not llama:
        found["position_embd.weight"] = weights["embeddings.position"]
    parts = {
        "attention_norm": "attn_norm",
        "ffn_norm": "ffn_norm",
        "attention.output": "attn_output",
        "ffn.up": "ffn_up",
        "ffn.down": "ffn_down",
        "ffn.gate": "ffn_gate",
    }
    names = {"final_norm": "output_norm"}
    names |= {f"layers.{i}.{ours}": f"blk.{i}.{theirs}" for i in range(spec.layers) for ours, theirs in parts.items()}
    for ours, theirs in names.items():
        for end in ("weight", "bias"):
            if f"{ours}.{end}" in weights:
                found[f"{theirs}.{end}"] = weights[f"{ours}.{end}"]
    for layer in range(spec.layers):
        for end in ("weight", "bias"):
            query, key, value = (
                weights[f"layers.{layer}.attention.{part}.{end}"] for part in ("query", "key", "value")
            )
            if llama:
                found[f"blk.{layer}.attn_q.{end}"] = _interleaved(query, spec.heads)
                found[f"blk.{layer}.attn_k.{end}"] = _interleaved(key, spec.kv_heads)
                found[f"blk.{layer}.attn_v.{end}"] = value
            else:
                found[f"blk.{layer}.attn_qkv.{end}"] = np.concatenate([query, key, value])
    return found


def _interleaved(array: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows in the order in which llama.cpp turns neighbors, not features half a head apart."""
    rows = array.reshape(heads, 2, -1, *array.shape[1:])
    turned: NDArray[np.float32] = rows.swapaxes(1, 2).reshape(array.shape)
    return turned
