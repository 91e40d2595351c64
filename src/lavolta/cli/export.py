"""`lavolta export` and `lavolta import`: to other tools and from them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lavolta.cli.compress import check_out, check_parents
from lavolta.cli.output import JsonOption, cell, quiet_stdout, say, show
from lavolta.errors import UserInputError

if TYPE_CHECKING:
    from rich.console import Console

    from lavolta.models.loaded import LoadedModel


class Format(str, Enum):
    """What other tools read."""

    ONNX = "onnx"
    HF = "hf"


def export(
    source: Annotated[str, typer.Argument(help="A bundle, a model folder, or the name of a model that is installed.")],
    out: Annotated[Path, typer.Option("--out", help="The .onnx file, or the new folder for hf.")],
    kind: Annotated[Format, typer.Option("--format", help="onnx: one dense graph; hf: a Hugging Face folder.")],
    level: Annotated[
        str | None, typer.Option("--level", help="Name or number of a bundle's level; absent: the densest.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one level of a bundle, or a model, as a normal dense model for other tools.

    What the level drops is written as zeros; other runtimes are not faster for them.

    Example: `lavolta export my.lavolta --level L3 --format hf --out my-model`
    """
    if kind is Format.ONNX:
        check_out(out)
    else:
        check_parents(out)
    with quiet_stdout():
        from lavolta.models.onnx_out import NOTICE, save_onnx

        loaded, name = _open(source, level)
        result: dict[str, object] = {"out": str(out), "format": kind.value, "level": name, "notice": NOTICE}
        if kind is Format.ONNX:
            save_onnx(loaded, out)
            result["bytes"] = out.stat().st_size
        else:
            from lavolta.models.hf_out import save_pretrained

            saved = save_pretrained(loaded, out)
            result |= {
                "architecture": saved.architecture,
                "head": saved.head,
                "encoder_sparsity": saved.sparsity,
                "whole_sparsity": saved.whole_sparsity,
            }

    def draw(console: Console) -> None:
        what = "the model" if name is None else f"level {name}"
        say(console, f"{out}: {what} of {source}.")
        if kind is Format.HF:
            say(
                console,
                f"transformers loads it as {result['architecture']}; zeros: {_percent(result['encoder_sparsity'])} of "
                f"the encoder's weights, {_percent(result['whole_sparsity'])} of all.",
            )
            if result["head"] == "modules":
                say(console, "Pooling and head are modules beside the encoder, which sentence-transformers runs.")
        say(console, NOTICE)

    show(as_json, result, draw)


def import_sparse(
    source: Annotated[str, typer.Argument(help="A Hugging Face folder with pruned weights.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write.")],
    cell_rows: Annotated[
        int, typer.Option("--cell-rows", help="Height of a cell: 1 keeps every zero; 2 to 16 run faster.")
    ] = 1,
    task: Annotated[
        str | None, typer.Option("--task", help="embedding: leave the checkpoint's head out; absent: as it was saved.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a bundle of a model that another tool has pruned: its zeros are the one level.

    Example: `lavolta import ./sparse-bert --out sparse.lavolta`
    """
    check_out(out)
    from lavolta.sparsity.cells import CELL_ROWS

    if cell_rows not in CELL_ROWS:
        raise UserInputError(f"--cell-rows is {cell_rows}; choose one of {', '.join(map(str, CELL_ROWS))}.")
    with quiet_stdout():
        from lavolta.models.export import export_bundle
        from lavolta.models.zeros import load_sparse

        found = load_sparse(source, cell_rows, task)
        kept = {"imported": {"zeros": found.zeros, "stored_masks": found.stored_masks}}
        export_bundle(found.loaded, [found.masks], [{"name": "L0"}], cell_rows, out, provenance=kept)
    result = {
        "out": str(out),
        "zeros": found.zeros,
        "sparsity": found.sparsity,
        "cell_rows": cell_rows,
        "stored_masks": found.stored_masks,
        "bytes": out.stat().st_size,
    }

    def draw(console: Console) -> None:
        say(
            console,
            f"{out}: {_percent(found.zeros)} of the weights of {source} are zero; the engine skips "
            f"{_percent(found.sparsity)} of them all in cells of {cell(cell_rows)} rows.",
        )
        say(console, f"Try it: lavolta run {out} --text 'some words'")

    show(as_json, result, draw)


def _open(source: str, level: str | None) -> tuple[LoadedModel, str | None]:
    """The model, and the name of its level; a folder has none."""
    if Path(source).is_file():
        from lavolta.models.from_bundle import level_index, model_of_level
        from lavolta.runtime.bundle import BundleFile

        bundle = BundleFile.open(source)
        place = level_index(bundle, level)
        return model_of_level(bundle, place), str(bundle.levels[place]["name"])
    if level is not None:
        raise UserInputError(f"{source} is no bundle and has no levels; leave --level out.")
    from lavolta.models.hf import load_encoder

    return load_encoder(source), None


def _percent(share: object) -> str:
    assert isinstance(share, float)
    return f"{100 * share:.1f} %"
