"""Questions as clauses."""

from __future__ import annotations

import pytest

from edgelm.text.indirect import indirect


@pytest.mark.parametrize(
    ("question", "clause"),
    [
        ("How do I clean a keyboard?", "how to clean a keyboard"),
        ("how can we keep our bread fresh", "how to keep your bread fresh"),
        ("What do I do with wet books?", "what to do with wet books"),
        ("What should I name my hen?", "what you should name your hen"),
        ("Which bus should we take to the zoo?", "which bus you should take to the zoo"),
        ("Why do cats purr?", "why cats purr"),
        ("Where do I live?", "where you live"),
        ("What is it called?", "what it is called"),
        ("who am I?", "who you are"),
        ("What's the capital of France?", "what the capital of France is"),
        ("What are the colours of the French flag?", "what the colours of the French flag are"),
        ("Who painted the gate?", "who painted the gate"),
        ("should I call her", "whether you should call her"),
        ("is there a bus at night?", "whether there is a bus at night"),
        ("Who is that man?", None),
        ("Is that shop open?", None),
        ("How do I look in this dress?", None),
        ("How could you forget my name?", None),
        ("Where is my mother from?", None),
        ("Where is the cat now?", None),
        ("Do it now", None),
        ("Tell me what is the capital of France", None),
        ("Who knows what will happen?", None),
        ("What do I do for a living?", "what you do for a living"),
        ("Is it me or is it hot in here?", None),
        ("Am I dying?", None),
        ("So, do we need an umbrella?", "whether you need an umbrella"),
        ("Tell me what belongs on a pizza margherita.", "what belongs on a pizza margherita"),
        ("What is the weather like tomorrow?", None),
        ("What are the kids doing?", None),
        ("Why is the sky blue?", None),
        ("Can penguins fly?", None),
        ("What do you like?", None),
        ("How are you?", None),
        ("What do I do if you stop answering?", None),
        ("Is my dad mad?", None),
        ("My dad just texted. Is he mad?", None),
        ('Who said "no"?', None),
        ("How do I " + "very " * 20 + "much?", None),
        ("", None),
        ("?", None),
        ("{0} {1}", None),
        ("Who painted {0} the gate?", "who painted {0} the gate"),
    ],
)
def test_a_question_as_a_clause(question: str, clause: str | None) -> None:
    assert indirect(question) == clause
