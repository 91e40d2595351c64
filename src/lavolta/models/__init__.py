"""Where models and data come from: encoders, the paper's language model, tasks and text; torch loads on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavolta.models.batching import Encoded as Encoded
    from lavolta.models.batching import encode_pairs as encode_pairs
    from lavolta.models.batching import encode_texts as encode_texts
    from lavolta.models.batching import predict as predict
    from lavolta.models.batching import random_batches as random_batches
    from lavolta.models.batching import sorted_batches as sorted_batches
    from lavolta.models.export import export_bundle as export_bundle
    from lavolta.models.hf import from_transformers as from_transformers
    from lavolta.models.hf import load_encoder as load_encoder
    from lavolta.models.hf import with_head as with_head
    from lavolta.models.hf_decoders import decoder_from_transformers as decoder_from_transformers
    from lavolta.models.hf_decoders import load_decoder as load_decoder
    from lavolta.models.hf_out import SavedFolder as SavedFolder
    from lavolta.models.hf_out import save_pretrained as save_pretrained
    from lavolta.models.lm import LmConfig as LmConfig
    from lavolta.models.lm import LmCorpus as LmCorpus
    from lavolta.models.lm import Vocabulary as Vocabulary
    from lavolta.models.lm import build_lm as build_lm
    from lavolta.models.lm import load_lm_corpus as load_lm_corpus
    from lavolta.models.loaded import Batch as Batch
    from lavolta.models.loaded import LoadedModel as LoadedModel
    from lavolta.models.loaded import run_module as run_module
    from lavolta.models.loaded import with_packed_head as with_packed_head
    from lavolta.models.tasks import Split as Split
    from lavolta.models.tasks import TaskData as TaskData
    from lavolta.models.tasks import load_task as load_task
    from lavolta.models.text import TextData as TextData
    from lavolta.models.text import builtin_text as builtin_text
    from lavolta.models.text import read_text as read_text
    from lavolta.models.text import user_text as user_text
    from lavolta.models.transformer import Dropout as Dropout
    from lavolta.models.transformer import EncoderOutput as EncoderOutput
    from lavolta.models.transformer import Transformer as Transformer

_HOME = {
    "Batch": "loaded",
    "Dropout": "transformer",
    "Encoded": "batching",
    "EncoderOutput": "transformer",
    "LmConfig": "lm",
    "LmCorpus": "lm",
    "LoadedModel": "loaded",
    "SavedFolder": "hf_out",
    "Split": "tasks",
    "TaskData": "tasks",
    "TextData": "text",
    "Transformer": "transformer",
    "Vocabulary": "lm",
    "build_lm": "lm",
    "builtin_text": "text",
    "decoder_from_transformers": "hf_decoders",
    "encode_pairs": "batching",
    "encode_texts": "batching",
    "export_bundle": "export",
    "from_transformers": "hf",
    "load_decoder": "hf_decoders",
    "load_encoder": "hf",
    "load_lm_corpus": "lm",
    "load_task": "tasks",
    "predict": "batching",
    "random_batches": "batching",
    "read_text": "text",
    "run_module": "loaded",
    "save_pretrained": "hf_out",
    "sorted_batches": "batching",
    "user_text": "text",
    "with_head": "hf",
    "with_packed_head": "loaded",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
