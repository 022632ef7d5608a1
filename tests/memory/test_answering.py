"""Where an answer comes from: told, the bank, or the model."""

from __future__ import annotations

import math

import pytest

from edgelm.memory import kinds
from edgelm.memory.answering import NOT_TOLD, UNSURE, UNSURE_ANSWER, Answering, Plan, reply_worth
from edgelm.memory.bank import Bank, Exchange, read_exchanges
from edgelm.memory.meaning import Meaning
from edgelm.memory.reminder import REMEMBERED
from edgelm.memory.rewriting import adapted_reply
from edgelm.memory.sorrow import cheers_at_sorrow
from edgelm.memory.statements import Statement, Statements, is_question, told_in

TOLD = [
    "My dog is called Biscuit.", "I lent my drill to Marcus.", "My sister lives in Bergen.", "I hate coriander.",
    "The spare key is under the blue pot.",
]  # fmt: skip
OWN = Exchange("Tell me a joke", "Two fish are in a tank.", 9)
SHIPPED = Exchange("Tell me a joke", "What is brown and sticky? A stick.")


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    return Meaning()


@pytest.fixture(scope="module")
def answering(meaning: Meaning) -> Answering:
    large = Bank(meaning, read_exchanges())
    few = [SHIPPED, Exchange("I am so tired.", "Then go to bed early."), Exchange("Good night!", "Sleep well.")]
    return Answering(meaning, [Bank(meaning, [OWN], large), Bank(meaning, few, large)])


def plan(answering: Answering, meaning: Meaning, turn: str, told: list[str] = TOLD, n_before: int = 0) -> Plan:
    return answering.plan(turn, Statements(meaning, [Statement(text, i) for i, text in enumerate(told, 1)]), n_before)


@pytest.mark.parametrize(
    ("question", "answer", "entry_id"),
    [
        ("What is my dog called?", "Your dog is called Biscuit.", 1),
        ("who did I lend my drill to", "You lent your drill to Marcus.", 2),
        ("Where does my sister live?", "Your sister lives in Bergen.", 3),
        ("Where is the spare key?", "The spare key is under the blue pot.", 5),
    ],
)
def test_what_was_told_is_said_back(
    answering: Answering, meaning: Meaning, question: str, answer: str, entry_id: int
) -> None:
    found = plan(answering, meaning, question)
    assert found.text == answer
    assert [one.statement.entry_id for one in found.told] == [entry_id]


def test_what_was_said_last_is_right(answering: Answering, meaning: Meaning) -> None:
    told = [*TOLD, "No, my dog is called Bella."]
    assert plan(answering, meaning, "What is my dog called?", told).text == "Your dog is called Bella."


def test_a_correction_counts_though_the_first_statement_fits_better(answering: Answering, meaning: Meaning) -> None:
    told = [
        "My sister thinks I am crazy. She lives in Vienna and has two boys.",
        "Actually my sister lives in Linz now",
    ]
    assert plan(answering, meaning, "where does my sister live?", told).told[0].statement.text == told[1]


def test_a_statement_that_fits_no_question_answers_none(answering: Answering, meaning: Meaning) -> None:
    told = ["I lent my drill to Marcus."]
    question = "What is the capital of Peru?"
    (only,) = Statements(meaning, [Statement(told[0], 1)]).find(question)
    assert only.score < 0
    assert plan(answering, meaning, question, told).told == ()


def test_what_was_not_told_is_not_made_up(answering: Answering, meaning: Meaning) -> None:
    assert plan(answering, meaning, "What is my father called?", []).text == NOT_TOLD
    assert plan(answering, meaning, "When is my father's birthday?", []).text == NOT_TOLD


def test_what_may_be_meant_is_said_as_that(answering: Answering, meaning: Meaning) -> None:
    found = plan(answering, meaning, "which pets do I have?", ["I keep bees at the bottom of the garden"])
    assert found.text == UNSURE.format("You keep bees at the bottom of the garden.")
    assert [one.statement.entry_id for one in found.told] == [1]


def test_an_exchange_is_given_where_it_fits_and_the_persons_own_first(answering: Answering, meaning: Meaning) -> None:
    assert plan(answering, meaning, "I am so tired!").text == "Then go to bed early."
    found = plan(answering, meaning, "Tell me a joke")
    assert (found.text, found.exchanges) == (OWN.reply, (OWN,))


def test_the_model_answers_where_nothing_is_near(answering: Answering, meaning: Meaning) -> None:
    assert plan(answering, meaning, "The tractor needs a new battery.").text is None


def test_a_short_turn_leans_on_what_was_said_before(answering: Answering, meaning: Meaning) -> None:
    assert plan(answering, meaning, "Good night!").text == "Sleep well."
    assert plan(answering, meaning, "Good night!", n_before=1).text is None


def test_statements_are_the_sentences_that_do_not_ask() -> None:
    assert told_in("Hi! My cat is ill. Who can help? She is old.") == ["Hi! My cat is ill. She is old."]
    assert told_in("what is my name") == []
    assert len(told_in("I like it here. " * 40)) > 1
    assert told_in("") == []
    # It asks as well, and tells.
    assert told_in("I am fourteen, can I get a job") == ["I am fourteen, can I get a job"]


def test_statements_that_come_later_are_found_as_if_read_at_once(meaning: Meaning) -> None:
    said = [Statement(text, i) for i, text in enumerate([*TOLD, "", "No, my dog is called Bella."])]
    together = Statements(meaning, said)
    bit_by_bit = Statements(meaning)
    for statement in said:
        bit_by_bit = Statements(meaning, [statement], bit_by_bit)
    for question in ("What is my dog called?", "who has my drill", ""):
        assert bit_by_bit.find(question, 6) == together.find(question, 6)


def test_a_statement_that_leans_on_the_one_before_holds_it() -> None:
    assert told_in("No, it leaves at nine", "My flight leaves at seven") == [
        "My flight leaves at seven. No, it leaves at nine"
    ]
    assert told_in("My cat is ill", "My flight leaves at seven") == ["My cat is ill"]
    assert told_in("it leaves at nine") == ["it leaves at nine"]


def test_a_correction_is_taken_note_of(answering: Answering, meaning: Meaning) -> None:
    assert plan(answering, meaning, "No, it leaves at nine.").text == REMEMBERED


@pytest.mark.parametrize(
    ("remark", "reply", "fits"),
    [
        ("The baby cried all night.", "Lovely, so you could sleep all night too.", False),
        ("The washing machine is broken again.", "Hooray, now the washing machine can do your laundry.", False),
        ("My flight was cancelled.", "How annoying! When does the next one go?", True),
        ("I passed my exam.", "Well done!", True),
    ],
)
def test_nobody_is_glad_of_what_is_sad(remark: str, reply: str, fits: bool) -> None:
    assert cheers_at_sorrow(remark, reply) != fits


def test_a_colour_is_never_taken_for_another(meaning: Meaning) -> None:
    green = Exchange("My favourite colour is dark green.", "Dark green, a nice colour!")
    assert adapted_reply(green, "My favourite colour is turquoise.", meaning) is None
    assert adapted_reply(green, "My favourite colour is dark green.", meaning) == green.reply


def test_what_is_asked_of_the_assistant_is_not_looked_up(answering: Answering, meaning: Meaning) -> None:
    statements = Statements(meaning, [Statement("The baby cried all night.", 1)])
    assert answering.plan("Do you like babies?", statements).told == ()
    assert answering.plan("Do you remember who cried all night?", statements).told != ()


def test_of_an_answer_that_it_is_unsure_of_the_model_says_nothing_but_it_may_greet(meaning: Meaning) -> None:
    unsure = UNSURE_ANSWER - 0.1
    assert reply_worth(meaning, "Which flowers does mum like?", "She likes roses.", unsure) == -math.inf
    assert reply_worth(meaning, "Which flowers does mum like?", "She likes roses.", unsure + 0.2) > -math.inf
    assert reply_worth(meaning, "Hi there, how is it going today?", "I'm well, thanks.", unsure) > -math.inf
    assert reply_worth(meaning, "I like roses.", "So do many people.", unsure) > -math.inf


@pytest.mark.parametrize(
    ("turn", "listens"),
    [
        ("My desk lamp was a Turkish coffee pot once.", True),
        ("I am so tired.", False),  # an exchange is near
        ("What is my dog called?", False),
        ("Why is the lamp green?", False),
        ("Sorry, I was late.", False),
    ],
)
def test_to_a_remark_that_nothing_fits_a_small_model_listens(
    answering: Answering, meaning: Meaning, turn: str, listens: bool
) -> None:
    small = Answering(meaning, answering._banks, talks=False)
    assert plan(small, meaning, turn).listens is listens
    assert plan(answering, meaning, turn).listens is False


@pytest.fixture(scope="module")
def with_kinds(meaning: Meaning) -> Answering:
    return Answering(meaning, [Bank(meaning, read_exchanges())], talks=False, kinds=kinds.shipped())


@pytest.mark.parametrize(
    ("turn", "answer"),
    [
        ("whats the capital of norway", "The capital of Norway is Oslo."),
        ("Is Oslo the capital of Norway?", "Yes, Oslo is the capital of Norway."),
    ],
)
def test_yes_and_no_answer_what_is_asked_with_a_verb(
    with_kinds: Answering, meaning: Meaning, turn: str, answer: str
) -> None:
    assert plan(with_kinds, meaning, turn, []).text == answer


def test_of_what_is_told_and_asked_the_question_is_answered(with_kinds: Answering, meaning: Meaning) -> None:
    found = plan(with_kinds, meaning, "My neighbour is very noisy at night. What can I do?", [])
    replies = [found.text] if found.text else [reply for reply, _ in found.others]
    assert replies and all("landlord" in reply for reply in replies)


def test_a_question_for_advice_is_none_for_what_was_told(with_kinds: Answering, meaning: Meaning) -> None:
    told = ["My uncle Alan has a cold. He snores like a walrus."]
    found = plan(with_kinds, meaning, "what can I cook for him that is easy on the throat?", told)
    assert not found.told and found.kind is not None and found.kind.name == "ask-cooking"
    assert plan(with_kinds, meaning, "how long do i boil eggs so the yolk stays soft", []).text != NOT_TOLD


def test_an_exchange_of_another_kind_is_not_given(meaning: Meaning) -> None:
    tired = Exchange("I am so tired.", "Then go to bed early.")
    large, named = Bank(meaning, read_exchanges()), kinds.shipped()

    def answer(exchange: Exchange, turn: str, known: kinds.Kinds | None = named) -> str | None:
        bank = Bank(meaning, [exchange], large)
        return plan(Answering(meaning, [bank], talks=False, kinds=known), meaning, turn, []).text

    assert answer(tired, "I am so tired of my neighbours", None) == tired.reply
    assert answer(tired, "I am so tired of my neighbours") is None
    assert answer(tired, "I am so tired today") == tired.reply
    # What the person gave as the answer, and whom to ask for help, is not kept back.
    assert answer(tired._replace(entry_id=3), "I am so tired of my neighbours") == tired.reply
    doctor = "Then go to bed early, or ask a doctor."
    assert answer(tired._replace(reply=doctor), "I am so tired of my neighbours") == doctor


def test_a_fact_that_is_learned_is_not_answered_as_if_it_were_another(with_kinds: Answering, meaning: Meaning) -> None:
    nothing_told = Statements(meaning)
    assert with_kinds.plan("my dog is called Biscuit", nothing_told).text is None
    # Where nothing is learned, "My pet is called Biscuit" is near enough.
    assert with_kinds.plan("my dog is called Biscuit", nothing_told, learns=False).text is not None


def test_of_exchanges_that_are_near_one_of_its_kind_is_chosen(with_kinds: Answering, meaning: Meaning) -> None:
    assert plan(with_kinds, meaning, "How many hours are there in a day?", []).text == "A day has 24 hours."


@pytest.mark.parametrize(
    "turn", ["What car do I drive?", "Which games do I like?", "What plants did I put in the garden?"]
)
def test_what_only_the_person_can_know_is_not_general(with_kinds: Answering, meaning: Meaning, turn: str) -> None:
    assert plan(with_kinds, meaning, turn, []).text == NOT_TOLD


def test_the_model_must_be_sure_where_something_is_asked_for(meaning: Meaning) -> None:
    poem = kinds.Kind("ask-text", kinds.ASKS, ("No.",))
    assert reply_worth(meaning, "a poem about trains please", "Trains run.", -0.2) > -math.inf
    assert reply_worth(meaning, "a poem about trains please", "Trains run.", -0.2, poem) == -math.inf
    assert reply_worth(meaning, "a poem about trains please", "Trains run.", None, poem) > -math.inf


@pytest.mark.parametrize(
    ("exchange", "turn", "given"),
    [
        (Exchange("My phone is empty.", "Quick, plug in your phone!"), "My phone is burning.", False),
        (Exchange("My pan is burning.", "Put a lid on it and turn off the heat."), "My pan is burning again.", True),
        (Exchange("My leg is sore again.", "Let the vet look at it."), "My leg is sore again!", False),
        (Exchange("My cat's leg is sore.", "Let the vet look at it."), "My cat's leg is sore!", True),
    ],
)
def test_a_reply_for_something_else_is_not_given_in_peril(
    meaning: Meaning, exchange: Exchange, turn: str, given: bool
) -> None:
    large = Bank(meaning, read_exchanges())
    found = plan(Answering(meaning, [Bank(meaning, [exchange], large)], talks=False), meaning, turn, [])
    assert (found.text == exchange.reply) is given


@pytest.mark.parametrize(
    ("turn", "asks"),
    [
        ("im babysitting and he wont go to bed what do i do", True), ("my dog ate grass, is it normal", True),
        ("I have two cats, should i get a third", True), ("my boss wants me to stay, any advice", True),
        ("were having pancakes for dinner", False), ("were you there", True), ("is swimming good for me", True),
        ("I know what I can do", False), ("we talked about what to do", False), ("I don't need any advice.", False),
        ("my boss never takes any advice", False), ("My knee is that bad", False), ("were evening classes fun", True),
        ("we have no food and what can we eat", True), ("My father died and nothing is that bad", False),
    ],
)  # fmt: skip
def test_people_ask_at_the_end_too(turn: str, asks: bool) -> None:
    assert is_question(turn) is asks


@pytest.mark.parametrize(
    "turn",
    [
        "Why does my hand go numb when I sew?",
        "do goldfish know who feeds them",
        "would it be daft to learn ballet at 53",
    ],
)
def test_what_was_never_to_be_told_is_not_asked_for(with_kinds: Answering, meaning: Meaning, turn: str) -> None:
    assert plan(with_kinds, meaning, turn, ["My dog is called Biscuit."]).text != NOT_TOLD
