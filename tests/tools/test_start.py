"""A run that begins with another model's weights; documents that repeat a passage; what is told and asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgelm.bench.peers.twins.model import Model
from edgelm.model.config import ModelConfig
from edgelm.text.tokenizer import DOC_ID
from tools.pretrain.again import BETWEEN, PASSAGE, repeated
from tools.pretrain.start import begin_from
from tools.pretrain.told import exchanges, told_and_asked

OLD = ModelConfig.flat(64, 32, 2, 4, 4, 6, 16, 4, 8, 2, 8, n_channels=4)


def weights_of(model: Model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_the_same_shape_takes_everything() -> None:
    torch.manual_seed(0)
    old, new = Model(OLD), Model(OLD)
    assert begin_from(new, OLD, weights_of(old), OLD) == []
    for name, p in new.named_parameters():
        assert torch.equal(p, weights_of(old)[name]), name


def test_other_sections_take_what_means_the_same() -> None:
    torch.manual_seed(0)
    config = OLD.resized(n_heads=2, key_dim=8, slope_dim=24)
    old, new = Model(OLD), Model(config)
    lacking = begin_from(new, config, weights_of(old), OLD)
    assert {name.rsplit(".", 1)[-1] for name in lacking} == {
        "w_in", "conv", "decay_bias", "write_bias", "decay_base", "decay_step", "head_norm", "w_out",
    }  # fmt: skip
    theirs, mine = old.layers[1].mixer, new.layers[1].mixer
    for channel in range(4):
        wide, narrow = slice(6 * channel, 6 * channel + 4), slice(4 * channel, 4 * channel + 4)
        assert torch.equal(mine.w_in[:, wide], theirs.w_in[:, narrow])
        assert torch.equal(mine.w_out[wide], theirs.w_out[narrow])
        assert torch.equal(mine.conv[wide], theirs.conv[narrow])
        assert torch.equal(
            mine.w_in[:, config.mixer.conv_dim + 6 * channel : config.mixer.conv_dim + 6 * channel + 4],
            theirs.w_in[:, OLD.mixer.conv_dim + 4 * channel : OLD.mixer.conv_dim + 4 * channel + 4],
        )
    # What is new is not heard yet.
    assert not mine.w_out[24:].any()
    assert torch.equal(new.layers[1].ffn.w1, old.layers[1].ffn.w1)


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="sections"):
        begin_from(Model(OLD), OLD, {}, OLD.resized(d_model=16))


def test_a_passage_is_read_again() -> None:
    rng = np.random.default_rng(0)
    length = PASSAGE[1] + BETWEEN[1] + 50
    texts = np.concatenate([np.append(rng.integers(1, 60_000, length), DOC_ID) for _ in range(3)]).astype(np.uint16)
    for document in repeated(texts, 20, rng):
        assert document[-1] == DOC_ID
        assert (document[:-1] != DOC_ID).all()
        again = [n for n in range(PASSAGE[0], len(document) // 2) if (document[:n] == document[-1 - n : -1]).all()]
        assert again, "no passage at the beginning stands at the end too"


def test_texts_too_short_to_repeat_are_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        next(repeated(np.array([5, 6, DOC_ID], np.uint16), 1, np.random.default_rng(0)))


TALK = """User: My dog is called Biscuit.
Assistant: A good name for a dog.
User: It rains today.
Assistant: Then stay inside with a book.
User: What is the name of my dog?
Assistant: Biscuit.
User: And what is the name of my cat?
Assistant: You have not told me that.
<|doc|>
User: Hello
Assistant: Hi!
"""


def test_a_question_finds_the_turn_that_answers_it(tmp_path: Path) -> None:
    (tmp_path / "talk_memory.txt").write_text(TALK + "<|doc|>\n" + "User: so\nAssistant: yes\n<|doc|>\n" * 500)
    memory = told_and_asked(tmp_path)
    assert [(t.asked, t.told, t.answer, t.distance) for t in memory.told] == [
        ("What is the name of my dog?", "My dog is called Biscuit.", "Biscuit.", 2)
    ]
    assert memory.never == ["And what is the name of my cat?"]


def test_exchanges_are_those_of_a_person_and_the_assistant(tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_text(TALK)
    assert list(exchanges(tmp_path, "talk", first_only=True)) == [
        ("My dog is called Biscuit.", "A good name for a dog."), ("Hello", "Hi!"),
    ]  # fmt: skip
    assert len(list(exchanges(tmp_path, "talk"))) == 5
