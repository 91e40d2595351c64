"""`lavolta generate`: a language model writes on, natively, at a level of the dial."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.output import JsonOption, quiet_pipe, say, show
from lavolta.cli.run_bundle import switch_to
from lavolta.errors import UserInputError

if TYPE_CHECKING:
    from rich.console import Console


def generate(
    bundle: Annotated[Path, typer.Argument(help="A bundle with a language model.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="The text to continue. Absent: what standard input holds.")
    ] = None,
    level: Annotated[
        str | None, typer.Option("--level", help="Name or number of the level; the densest (0) when absent.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Most tokens to write.")] = 64,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0: always the most likely token; higher: more chance.")
    ] = 0.0,
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="Choose among the K likeliest only; 0: all.")] = 0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Choose among the likeliest that together have this probability.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is random.")] = 0,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="End before this text; repeat it.")] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads of the engine.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Continue a text with a language model, natively, at one level of the dial.

    Example: `lavolta generate my.lavolta --prompt 'Once upon a time' --level L2 --temperature 0.8 --seed 1`
    """
    import lavolta

    with lavolta.open(bundle, threads=threads) as model:
        if level is not None:
            switch_to(model, level)
        text = _standard_input() if prompt is None else prompt
        start_ns = time.perf_counter_ns()
        tokens = model.generate(
            text,
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stop=stop or (),
        )
        ids, pieces, times_ns = [], [], []
        with quiet_pipe():
            if not as_json:
                sys.stdout.write(text)
            for token in tokens:
                times_ns.append(time.perf_counter_ns())
                ids.append(token.id)
                pieces.append(token.text)
                if not as_json:
                    sys.stdout.write(token.text)
                    sys.stdout.flush()
        name, prompt_tokens = model.levels[model.level], len(model.codec().prompt(text))
    if not times_ns:
        return
    decode_ms = (times_ns[-1] - times_ns[0]) / 1e6
    data: dict[str, Any] = {
        "bundle": bundle,
        "level": name,
        "prompt": text,
        "text": "".join(pieces),
        "token_ids": ids,
        "prompt_tokens": prompt_tokens,
        "first_token_ms": (times_ns[0] - start_ns) / 1e6,
        "tokens_per_s": 1e3 * (len(ids) - 1) / decode_ms if decode_ms > 0 else None,
    }

    def draw(console: Console) -> None:
        speed = "" if data["tokens_per_s"] is None else f", then {data['tokens_per_s']:.1f} tokens a second"
        say(console, f"\n\nLevel {name}: {prompt_tokens} tokens read in {data['first_token_ms']:.1f} ms{speed}")

    show(as_json, data, draw)


def _standard_input() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        raise UserInputError("there is no text to continue; give --prompt 'some words', or pipe it into the command.")
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserInputError(f"the input is not UTF-8 text at byte {error.start}; convert it to UTF-8.") from error
    return text.removesuffix("\n")
