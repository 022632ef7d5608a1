"""What is said where nothing fits: that it was heard, by the kind of remark, and in turns."""

from __future__ import annotations

import pytest

from edgelm.memory import acknowledging as said
from edgelm.memory.acknowledging import (
    CANNOT,
    GLADNESS,
    GO_ON,
    SYMPATHY,
    THANKS,
    TO_COME,
    is_remark,
    kept_in_mind,
    nothing_to_say,
)


def filled(statement: str) -> tuple[str, ...]:
    """What takes a statement up."""
    return tuple(form.format(statement) for form in said.TAKEN_UP)


@pytest.mark.parametrize(
    ("turn", "forms"),
    [
        ("The court sent my cousin to prison.", SYMPATHY),
        ("My train was cancelled and now I am stuck.", SYMPATHY),
        ("I finally finished reading that long novel.", GLADNESS),
        ("we won, three to one", GLADNESS),
        ("The best seat was not free.", GO_ON),
        ("I can’t find my glasses anywhere.", SYMPATHY),
        ("We are going to the seaside next weekend, we'll take the train.", TO_COME),
        ("I’ll paint the gate green.", TO_COME),
        ("My father's bike had 3 gears, mine has 21, my son's has a motor. We're getting lazy.", THANKS),
        ("my favourite colour is turquoise", filled("your favourite colour is turquoise.")),
        ("I have taught my grandma to knit.", filled("you have taught your grandma to knit.")),
        ("I can’t stand the sound of my alarm", filled("you can't stand the sound of your alarm.")),
        ("They've put a beehive on the roof of the opera.", GO_ON),
        ("Name a job that starts very early.", (CANNOT,)),
        ("turn on the light in the hall", (CANNOT,)),
        ("Who painted the gate?", ("I am sorry, I do not know who painted the gate.",)),
        ("My dad just texted. Is he mad", ("I am sorry, I do not know whether he is mad.",)),
        ("Can penguins fly?", (said.UNKNOWN_ANSWER,)),
        ("Can you believe it rained all day?", (said.UNKNOWN_ANSWER,)),
        ("My mum died yesterday. What do I do now?", SYMPATHY),
        ("We had a picnic by the lake. What a day!", GO_ON),
        ("My brother is Will. Will is a doctor.", THANKS),
        ("Imagine that, I won the raffle.", GLADNESS),
        ("I need insulin every day.", THANKS),
        ("My sister does not eat meat.", filled("your sister does not eat meat.")),
        ("I don't understand.", GO_ON),
        ("Could you water the plants?", (said.ABILITIES,)),
        ("Explain why I need sunscreen.", (CANNOT,)),
        ("I do not eat pork", filled("you do not eat pork.")),
        ("I sold my drum kit to pay the vet.", GO_ON),
        ("The actor didn’t want to sign my book.", GO_ON),
        ("can’t stop eating cherries", GO_ON),
        ("I think I told you the code.", GO_ON),
        ("I am proud but the house is empty.", filled("you are proud but the house is empty.")),
    ],
)
def test_the_kind_of_a_remark(turn: str, forms: tuple[str, ...]) -> None:
    before: list[tuple[str, str]] = []
    for _ in range(2 * len(forms)):
        before.append((turn, nothing_to_say(turn, before, learns=True)))
    found = [reply for _, reply in before]
    assert sorted(found[: len(forms)]) == sorted(forms) and found[len(forms) :] == found[: len(forms)]


def test_what_is_not_learned_is_not_said_to_be_remembered() -> None:
    turn = "My desk lamp was a Turkish coffee pot once."
    assert {nothing_to_say(turn + n * ".", learns=False) for n in range(3)} == {*GO_ON}


def test_a_form_is_not_taken_twice_in_a_row() -> None:
    exchanges: list[tuple[str, str]] = []
    for turn in ("my dog is called Biscuit", "my favourite colour is turquoise", "my car is a red van"):
        exchanges.append((turn, nothing_to_say(turn, exchanges, learns=True)))
    assert len({reply.partition(" that ")[0] for _, reply in exchanges[:2]}) == 2
    assert exchanges[0][1].partition(" that ")[0] == exchanges[2][1].partition(" that ")[0]


def test_nothing_is_said_twice_by_several_kinds() -> None:
    kinds = (SYMPATHY, GLADNESS, TO_COME, THANKS, GO_ON)
    assert len({text for forms in kinds for text in forms}) == sum(map(len, kinds))


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        ("The pond is dry.", True), ("My son collects cards.", True), ("Yes, it is.", False), ("In Peru.", False),
        ("Thank you very much!", False), ("Sorry, I was late again.", False), ("You’re a terrible liar.", False),
        ("Is the pond dry?", False), ("can't stop eating cherries", True), ("My dad texted. Is he mad", False),
        ("Yesterday it rained all day.", True), ("Hello! I hope I am in time.", False),
    ],
)  # fmt: skip
def test_what_is_a_remark(turn: str, found: bool) -> None:
    assert is_remark(turn) is found


def test_the_words_of_each_kind_are_english_of_one_line() -> None:
    for text in (*SYMPATHY, *GLADNESS, *TO_COME, *THANKS, *GO_ON, CANNOT, said.UNKNOWN_ANSWER, said.ABILITIES):
        assert text[0].isupper() and text[-1] in ".?" and len(text.split()) <= 15


@pytest.mark.parametrize("turn", ["", "   ", "...", "’ ’ ’", "my {0} {} {x} is odd", "\x00", "ß" * 2000, "my " * 500])
def test_any_turn_gets_a_line(turn: str) -> None:
    reply = nothing_to_say(turn, [("", ""), (turn, turn)], learns=True)
    assert reply.strip() and "\n" not in reply


@pytest.mark.parametrize(
    ("turn", "answer"),
    [
        ("Please remember I take my tablets with breakfast, not after.",
         "I will remember it: you take your tablets with breakfast, not after."),
        ("dont forget that we leave at nine", "I will remember it: you leave at nine."),
        ("remember Anna is vegan", "I will remember it: Anna is vegan."),
        ("Remember that my grey coat with the horn buttons hangs in the wardrobe of my sister in Leeds, not here",
         "Thank you, I will remember that."),
        ("Please call me bram", "All right, Bram. I will remember it."),
        ("Call me Mary Ann from now on, not Mary", "All right, Mary Ann. I will remember it."),
        ("call me O'Brien", "All right, O'Brien. I will remember it."),
        ("call me later", None), ("call me crazy but I love sprouts", None), ("can you remember my name", None),
        ("could you remember I take tablets at nine", None), ("remember my", None), ("remember i", None),
        ("remember what is my name", None), ("Remember my mum is vegan, what can i cook", None),
        ("Don't forget my dad died on Sunday", None), ("remember my first day at school", None),
        ("Remember when we talked about boats", None), ("remember the times we had", None),
        ("remember to feed the cat", None), ("don't forget your hat", None), ("Remember my friend?", None),
        ("call me when you are ready", None), ("I remember that my aunt was tall", None),
    ],
)  # fmt: skip
def test_what_shall_be_remembered_is_said_back(turn: str, answer: str | None) -> None:
    assert kept_in_mind(turn, learns=True) == answer
    assert kept_in_mind(turn, learns=False) == (answer and said.NOT_KEPT)
