"""What is left out of a corpus."""

from __future__ import annotations

from tools.pretrain.clean import RUN, Filter

SENTENCE = "The quick brown fox jumps over the lazy dog near the old mill."
OTHER = "Nobody in the village had ever seen such a large and friendly bear."


def test_repeated_documents_stay_once_whatever_their_case_and_marks() -> None:
    kept = Filter()
    assert list(kept.keep([SENTENCE, OTHER])) == [SENTENCE, OTHER]
    assert list(kept.keep([SENTENCE.upper(), OTHER + "!!", SENTENCE + " Yes"])) == [SENTENCE + " Yes"]
    assert kept.left_out == {"repeated": 2}


def test_a_held_out_paragraph_is_left_out_a_phrase_is_not() -> None:
    kept = Filter(held_out=[SENTENCE])
    phrase = "We said that the quick brown fox jumps over the lazy bear. " + " ".join(f"word{i}" for i in range(40))
    assert list(kept.keep([f"Look: {SENTENCE}", phrase, OTHER])) == [phrase, OTHER]
    assert kept.left_out == {"held out": 1}


def test_of_some_texts_not_one_run_stays() -> None:
    prompt = " ".join(SENTENCE.split()[:RUN])
    kept = Filter(never=[prompt])
    long = " ".join([OTHER] * 50)
    almost = " ".join(SENTENCE.split()[1 : RUN + 1])
    assert list(kept.keep([f"{long} {prompt} {long}", almost])) == [almost]
    assert kept.left_out == {"never to be read": 1}


def test_short_texts_have_no_runs() -> None:
    kept = Filter(held_out=["Good morning"], never=["Good morning to you"])
    assert list(kept.keep(["Good morning", "Good morning to you"])) == ["Good morning", "Good morning to you"]


def test_chinese_counts_characters() -> None:
    kept = Filter(held_out=["今天天气很好我们去公园"])
    assert list(kept.keep(["他说今天天气很好我们去公园", "今天很好"])) == ["今天很好"]
