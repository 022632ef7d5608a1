"""``complete``, ``suggest``, ``fill`` and ``choose``."""

from __future__ import annotations

import click

from edgelm.cli.options import Common, catch_up, common
from edgelm.config import SampleConfig
from edgelm.engine.fill import BLANK, MAX_WORDS, Blank, fill_blank
from edgelm.engine.generate import Generation
from edgelm.engine.suggest import split_begun, suggest_words
from edgelm.errors import InputError
from edgelm.measure.choosing import choose as ranked
from edgelm.runtime import Engine


@click.command()
@click.argument("text")
@click.option("-n", "n_tokens", type=click.IntRange(1, 100_000), default=64, show_default=True, help="Tokens at most.")
@click.option("--temperature", type=float, default=0.5, show_default=True, help="0: always the likeliest.")
@common
def complete(text: str, n_tokens: int, temperature: float, common: Common) -> None:
    """Continue TEXT."""
    sampling = SampleConfig(temperature=temperature, max_tokens=n_tokens)
    with Engine(common.options, fixed=True) as engine:
        catch_up(engine, common)
        tokenizer, pieces = engine.tokenizer, []
        ids, decoder = engine.template.document(tokenizer.encode(text)), tokenizer.stream()
        for token in Generation(engine.session, ids, sampling, engine.new_rng(), engine.new_mix()):
            pieces.append(decoder.feed(token.id))
            if not common.json:
                click.echo(pieces[-1], nl=False)
        pieces.append(decoder.flush())
        common.emit({"text": "".join(pieces), "tokens": len(pieces) - 1}, pieces[-1])


@click.command()
@click.argument("text")
@click.option("-k", "n_words", type=click.IntRange(1, 50), default=5, show_default=True, help="Words at most.")
@click.option("--begun", is_flag=True, help="TEXT may end inside a word: the words that it can become.")
@common
def suggest(text: str, n_words: int, begun: bool, common: Common) -> None:
    """The likeliest next words after TEXT, with their probabilities.

    With --begun, if TEXT ends in a letter, the words begin with the last word of TEXT, and their probabilities are
    those that they have before it is known how the word begins.
    """
    before, begins = split_begun(text) if begun else (text.rstrip(), " ")
    if not begins.strip():
        before, begins = text.rstrip(), " "
    with Engine(common.options, fixed=True) as engine:
        catch_up(engine, common)
        ids = engine.template.document(engine.tokenizer.encode(before))
        words = suggest_words(engine.session, engine.tokenizer, ids, n_words, engine.new_mix, begins)
    rows = [{"word": word, "probability": round(probability, 6)} for word, probability in words]
    common.emit({"suggestions": rows}, "\n".join(f"{row['probability']:8.4f}  {row['word']}" for row in rows))


@click.command()
@click.argument("text")
@click.option("-k", "n_fills", type=click.IntRange(1, 32), default=5, show_default=True, help="Fills at most.")
@click.option(
    "--words", type=click.IntRange(1, 8), default=MAX_WORDS, show_default=True, help="Words of a fill at most."
)
@common
def fill(text: str, n_fills: int, words: int, common: Common) -> None:
    """What the blank of TEXT, written [...], may hold, likeliest first.

    What stands before the blank and what stands after it are both looked at. The log-probability is that of the fill
    and of the beginning of what stands after it.
    """
    blank = Blank.find(text)
    with Engine(common.options, fixed=True) as engine:
        catch_up(engine, common)
        fills = fill_blank(engine.session, engine.tokenizer, blank, n_fills, engine.new_mix, words, engine.template)
    if not fills:
        raise InputError(f"no word was found for the blank {BLANK}; give more of the text before it")
    rows = [{"text": found, "log_probability": round(value, 6)} for found, value in fills]
    fields = {"text": blank.filled(fills[0][0]), "fills": rows}
    common.emit(fields, "\n".join(f"{row['log_probability']:10.3f}  {row['text']}" for row in rows))


@click.command()
@click.argument("prompt")
@click.option("-c", "candidates", multiple=True, required=True, metavar="TEXT", help="A continuation; give several.")
@click.option("--as-reply", is_flag=True, help="PROMPT is a turn of the person, the candidates are answers.")
@common
def choose(prompt: str, candidates: tuple[str, ...], as_reply: bool, common: Common) -> None:
    """Rank the given continuations of PROMPT by total log-probability."""
    with Engine(common.options, fixed=True) as engine:
        catch_up(engine, common)
        ranking = ranked(engine, prompt, candidates, as_reply=as_reply)
    rows = [{"text": text, "log_probability": round(value, 6)} for text, value in ranking]
    common.emit({"ranking": rows}, "\n".join(f"{row['log_probability']:10.3f}  {row['text']}" for row in rows))
