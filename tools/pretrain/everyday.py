"""Writes short everyday dialogues, composed from the phrases of ``everyday.toml`` and ``knowledge.toml``.

    python -m tools.pretrain.everyday OUT.txt --dialogues 60000 --seed 1

A dialogue chains exchanges on related topics. Facts that the user tells are kept, so that later questions
about them are answered from the same dialogue, corrections hold, and what was never told is not known.
"""

from __future__ import annotations

import argparse
import random
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.pretrain.corpus import SEPARATOR

PHRASES = (Path(__file__).with_suffix(".toml"), Path(__file__).with_name("knowledge.toml"))
KNOWN_BEST_FIRST = PHRASES[1]  # its lists, and those of sums
WELL_KNOWN = 5  # so many entries are about equally likely; from there on the n-th is drawn about 1/n as often
LENGTHS, LENGTH_WEIGHTS = range(1, 9), (14, 14, 15, 15, 14, 11, 9, 8)
ASKS = re.compile(
    r"(Do|Does|Did|Can|Could|Are|Is|Was|Will|Would|Should|How|Who|Why|When|Where|Which|What(?! an? ))('?s)? ",
    re.IGNORECASE,
)
CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{([a-z_]+)(?::([a-z]))?(?:\.(\d))?\}")
ARTICLE = re.compile(r"\b([Aa])\(n\) (?=(\w))(?!uku|uni|use)")
Bound = dict[str, list[str]]


def computed_lists(months: list[str], numbers: list[str]) -> dict[str, list[list[str]]]:
    """The lists that are counted rather than written: sums, the smallest first, and dates."""
    small, tens, dates = range(1, 21), range(2, 11), [[f"{d} {m}"] for m in months for d in range(1, 29)]
    plus = sorted(((a, b, a + b) for a in small for b in small), key=lambda row: row[2])
    times = sorted(((a, b, a * b) for a in tens for b in tens), key=lambda row: row[2])
    sums = {
        "plus": plus,
        "minus": [(a, b, a - b) for a in small for b in range(2, a - 1)],
        "times": times,
        "divide": [(product, b, a) for a, b, product in times],
    }
    return {name: [[f"{number}" for number in row] for row in rows] for name, rows in sums.items()} | {
        "sumwords": [[numbers[number] for number in row] for row in plus if max(row[:2]) <= 10],
        "date": dates + [[f"{m} {d}"] for m in months for d in (3, 9, 12, 20)],
    }


def rows(text: str) -> list[list[str]]:
    """The entries of a list, written in one line or one a line, each split into its fields."""
    entries = text.strip().split("\n") if "\n" in text else text.split(", ")
    return [entry.split(" / ") for entry in entries]


def patterns(text: str) -> list[list[str]]:
    """The patterns of a topic, each its turns; one of weight n is there n times."""
    blocks = re.findall(r"^-(\d*) (.*(?:\n= .*)+)", text, flags=re.MULTILINE)
    return [block.split("\n= ") for weight, block in blocks for _ in range(int(weight or 1))]


class Phrases:
    """The parsed phrase files: lists, topics of patterns (each its turns), facts and the ways to talk of them."""

    def __init__(self, paths: Sequence[Path] = PHRASES) -> None:
        table: dict[str, dict[str, Any]] = {}
        for path in paths:
            for section, content in tomllib.loads(path.read_text(encoding="utf-8")).items():
                table.setdefault(section, {}).update(content)
        self.lists = {name: rows(text) for name, text in table["lists"].items()}
        computed = computed_lists(*([row[0] for row in self.lists[name]] for name in ("month", "number")))
        self.lists |= computed
        known = tomllib.loads(KNOWN_BEST_FIRST.read_text(encoding="utf-8"))["lists"]
        self.best_first = {*known, *computed} - {"date"}
        self.lists["name"] = self.lists["fname"] + self.lists["mname"]
        self.lists["spell"] = [[w, "-".join(w), w[0], w[-1], f"{len(w)}"] for (w,) in self.lists["spell"]]
        self.topics = {topic: patterns(text) for topic, text in table["topics"].items()}
        self.talk: dict[str, list[str]] = table["talk"]
        self.short, self.american, self.typos = table["short"], table["american"], table["typos"]
        self.facts: dict[str, dict[str, Any]] = table["fact"]
        self.middle = [topic for topic, weight in table["weight"].items() for _ in range(weight)]


def sentence_case(text: str) -> str:
    """``text`` with capitals at the starts of its sentences."""
    return re.sub(r"(^|[.!?] )([a-z])(?!dgelm)", lambda m: m[1] + m[2].upper(), text)


def to_assistant(phrase: str) -> str:
    """What the user calls "my" seen from the other side."""
    swaps = {"my": "your", "our": "your", "I am": "you are", "I was": "you were", "I": "you", "we are": "you are"}
    return re.sub(r"\b(I am|I was|we are|my|our|I)\b", lambda m: swaps[m[1]], phrase)


class Dialogue:
    """One dialogue in the making: its lines, the user's way of writing and what the user has told."""

    def __init__(self, phrases: Phrases, rng: random.Random) -> None:
        self.phrases, self.rng = phrases, rng
        self.turns: list[str] = []
        self.used: set[tuple[str, str]] = set()  # rows of lists and patterns
        self.told: dict[str, tuple[str, Bound]] = {}  # key: fact and slots
        self.pending: list[str] = []  # told, not asked for since
        self.forgotten: set[str] = set()
        self.corrected: set[str] = set()
        self.to_tell: tuple[str, str, Bound] | None = None  # the fact to tell next
        self.just: str | None = None  # the fact of the last exchange
        self.casual, self.typo = rng.choice((0.0, 0.0, 0.3, 1.0, 1.0)), rng.choice((0.0, 0.0, 0.0, 0.1, 0.25))
        self.short, self.american = rng.random() < 0.3, rng.random() < 0.4

    def draw(self, name: str) -> list[str]:
        """A row of list ``name``, new to this dialogue where the list is long enough, rather a well-known one."""
        rows = self.phrases.lists[name]
        fresh = [row for row in rows if (name, row[0]) not in self.used] if len(rows) > 14 else rows
        pool = fresh or rows
        row = self.rng.choice(pool)
        if name in self.phrases.best_first and len(rows) > 14:
            # Log-uniform: what people ask for follows Zipf's law, and a small model must meet a fact often to keep it.
            row = pool[int(WELL_KNOWN * (1 + len(pool) / WELL_KNOWN) ** self.rng.random() - WELL_KNOWN)]
        self.used.add((name, row[0]))
        return row

    def fill(self, template: str, bound: Bound) -> str:
        """``template`` with its choices taken and its slots filled, drawing what ``bound`` lacks."""

        def slot(match: re.Match[str]) -> str:
            name, tag, field = match.groups()
            if name == "me":
                return f", {self.told['name'][1]['name'][0]}" if "name" in self.told and self.rng.random() < 0.8 else ""
            if name == "myname":
                return self.told["name"][1]["name"][0]
            key = f"{name}:{tag}" if tag else name
            if key not in bound:
                bound[key] = self.draw(name)
            return bound[key][int(field or 0)]

        text = template
        while CHOICE.search(text) or SLOT.search(text):  # entries of lists have choices and slots too
            while CHOICE.search(text):
                text = CHOICE.sub(lambda m: self.rng.choice(m[1].split("|")), text)
            text = SLOT.sub(slot, text)
        text = re.sub(r" +", " ", text).strip()
        text = ARTICLE.sub(lambda m: m[1] + ("n " if m[2] in "aeiouAEIO" else " "), text)
        return text.replace("(n) ", " ").replace(" ,", ",")

    def say(self, user: str, reply: str, lower: bool = True) -> None:
        """Adds an exchange, the user's line in the user's style."""
        casual = self.rng.random() < self.casual
        for good, bad in self.phrases.typos.items():
            if self.rng.random() < self.typo:
                user = re.sub(rf"\b{good}\b(?!')", bad, user, count=1)
        user = sentence_case(user)
        if casual:
            user = user.lower() if lower else user
            user = re.sub(r"[.?]$|[,'](?= |(s|m|t|re|ll)\b)", "", user) if self.rng.random() < 0.7 else user
        elif not user.endswith(("?", "!", ".")):
            user += "?" if ASKS.match(user) else "."
        reply = sentence_case(reply)
        for long, short in self.phrases.short.items() if self.short else ():
            user, reply = re.sub(long, short, user), re.sub(long, short, reply)
        for line in (f"User: {user}", f"Assistant: {reply}"):
            for british, american in self.phrases.american.items() if self.american else ():
                line = re.sub(british, american, line)
            self.turns.append(line)

    def pattern(self, topic: str, left: int) -> None:
        """One pattern of ``topic`` that fits into ``left`` exchanges and was not used yet."""
        chosen, bound = self.rng.choice(self.phrases.topics[topic]), Bound()
        if len(chosen) > 2 * left or (topic, chosen[0]) in self.used:
            return  # another try follows
        if "{" not in chosen[0]:  # with a slot it comes again as another question
            self.used.add((topic, chosen[0]))
        turns = [self.fill(turn, bound) for turn in chosen]
        if topic not in ("open", "about") and ASKS.match(turns[0]) and self.rng.random() < 0.08:
            turns[0] = self.talk("lead", {}) + turns[0].removesuffix("?") + "?"
        for user, reply in zip(turns[::2], turns[1::2], strict=True):
            self.say(user, reply)
        self.just = None

    def parts(self, name: str, bound: Bound, *keys: str) -> dict[str, str]:
        """The filled forms of a fact: value, thing asked for, answer, and those of ``keys``."""
        fact, pick = self.phrases.facts[name], self.rng.choice
        thing, answer = self.fill(fact["np"], bound), to_assistant(self.fill(pick(fact["answer"]), bound))
        forms = {"np": thing, "your": to_assistant(thing), "answer": answer, "that": answer[0].lower() + answer[1:-1]}
        forms["v"] = to_assistant(self.fill(fact["v"], bound))
        return forms | {key: self.fill(pick(fact[key]), bound) for key in keys}

    def talk(self, kind: str, forms: dict[str, str]) -> str:
        """A way to talk about facts, with ``forms`` put in."""
        return SLOT.sub(lambda m: forms[m[1]], self.rng.choice(self.phrases.talk[kind]))

    def new_fact(self, topic: str, untold: bool = False) -> tuple[str, str, Bound] | None:
        """Key, name and slots of a fact not told yet, often one of ``topic``."""
        facts = self.phrases.facts
        names = [n for n, f in facts.items() if f.get("topic", topic) == topic or self.rng.random() < 0.5]
        name, bound = self.rng.choice(names or ["pet"]), Bound()
        self.fill(facts[name]["np"], bound)
        key = name + "".join(" " + row[0] for row in bound.values())
        closed = key in self.told or key in self.forgotten or (untold and not facts[name].get("asked_untold", True))
        return None if closed else (key, name, bound)

    def claim(self, name: str, bound: Bound, short: bool) -> str:
        """A fact as the user states it in a correction, ``short`` right after it was the subject."""
        fact = self.phrases.facts[name]
        forms = fact["fix"] if "fix" in fact and (short or name == "name") else fact["tell"]
        return self.fill(self.rng.choice(forms), bound)

    def tell(self, topic: str) -> None:
        """The user tells a fact, or two at once, or begins by correcting what was said another day."""
        fresh, self.to_tell = self.to_tell or self.new_fact(topic), None
        if fresh is None:
            return
        key, name, bound = fresh
        forms = self.parts(name, bound, "tell", "react")
        user, self.just = forms["tell"], key
        reply = forms["react"] if self.rng.random() < 0.65 or name == "name" else self.talk("told", forms)
        if not self.turns and self.rng.random() < 0.12:
            user = self.talk("fix_now", {"say": self.claim(name, bound, short=False)})
            reply = self.talk("sorry", forms)
        other = self.new_fact(topic) if self.turns and self.rng.random() < 0.08 else None
        self.told[key] = (name, bound)
        if other and other[1] != "name" and other[0] != key:
            user += " and " + self.parts(*other[1:], "tell")["tell"]
            reply, self.told[other[0]] = self.talk("told_both", {}), other[1:]
            self.pending.append(other[0])
        self.pending.append(key)
        self.say(user, reply, "wifi" not in user and "wifi" not in bound)

    def question(self, name: str, bound: Bound) -> str:
        """A question about a fact, in its own or in general words."""
        forms = self.parts(name, bound, "ask")
        kind = "ask_how" if re.match(r"where|when|what|how|which", forms["np"]) else "ask"
        return forms["ask"] if self.rng.random() < 0.6 else self.talk(kind, forms)

    def ask(self) -> None:
        """The user asks for the fact that waits longest, openly or with a guess."""
        self.just = self.pending.pop(0)
        name, bound = self.told[self.just]
        forms, right = self.parts(name, bound), self.rng.random() < 0.5
        if self.rng.random() < 0.15:
            guess = self.parts(name, bound if right else self.other_value(name, bound), "check")
            self.say(guess["check"], f"{'Yes' if right else 'No'}, {forms['that']}.")
        else:
            self.say(self.question(name, bound), forms["answer"])

    def other_value(self, name: str, bound: Bound) -> Bound:
        """``bound`` with another value of the fact."""
        value = self.phrases.facts[name]["value"]
        other = {slot: row for slot, row in bound.items() if slot.split(":")[0] != value}
        while (row := self.draw(value)) == bound[value]:
            pass
        return other | {value: row}

    def correct(self, key: str) -> None:
        """The user corrects a fact; the new value holds from here."""
        name, now = self.told[key][0], key == self.just
        bound = self.other_value(*self.told[key])
        self.told[key] = (name, bound)
        self.corrected.add(key)
        self.pending = [*(other for other in self.pending if other != key), key]
        user = self.talk("fix_now" if now else "fix_later", {"say": self.claim(name, bound, now)})
        self.say(user, self.talk("sorry", self.parts(name, bound)), name != "wifi")
        self.just = key

    def unknown(self, topic: str) -> None:
        """The user asks for something never told, and perhaps tells it next."""
        if fresh := self.new_fact(topic, untold=True):
            self.say(self.question(*fresh[1:]), self.talk("unknown", self.parts(*fresh[1:])))
            self.to_tell, self.just = fresh if self.rng.random() < 0.5 else None, None

    def aside(self, left: int) -> None:
        """The user has a fact forgotten, or asks what is known."""
        if self.told and self.rng.random() < 0.4:
            key = self.rng.choice(list(self.told))
            name, bound = self.told.pop(key)
            forms = self.parts(name, bound)
            self.pending = [other for other in self.pending if other != key]
            self.forgotten.add(key)
            self.say(self.talk("forget", forms), self.talk("forgotten", forms))
            if left > 1:
                self.say(self.question(name, bound), self.talk("unknown", forms))
        elif self.told or len(self.turns) < 3:
            answers = [self.parts(*fact)["answer"] for fact in list(self.told.values())[:3]]
            self.say(self.talk("recall", {}), " ".join(answers) or self.talk("recall_none", {}))
        self.just = None


def compose(phrases: Phrases, rng: random.Random) -> str:
    """One dialogue."""
    talk, opener = Dialogue(phrases, rng), rng.random()
    total = rng.choices(LENGTHS, LENGTH_WEIGHTS)[0]
    n_facts = min(rng.choices((0, 1, 2, 3), (66, 25, 7, 2))[0], total // 2)
    closing, topic = total > 2 and rng.random() < 0.3, rng.choice(phrases.middle)
    if opener < 0.2:
        talk.pattern("open", total)
    if n_facts and (opener < 0.1 or opener > 0.7):
        talk.to_tell = ("name", "name", {"name": talk.draw("name")})
    while (left := total - closing - len(talk.turns) // 2) > 0:
        roll = rng.random()
        if rng.random() < 0.25:
            topic = rng.choice(phrases.middle)
        open_to_change = [key for key in talk.told if key not in talk.corrected]
        if talk.just in open_to_change and left > 1 and roll < 0.13:
            talk.correct(talk.just)
        elif talk.pending and (left <= len(talk.pending) or roll < 0.22):
            talk.ask()
        elif talk.to_tell or (n_facts and left > 1 and roll < 0.55):
            n_facts -= n_facts > 0
            talk.tell(topic)
        elif open_to_change and left > 1 and roll < 0.29:
            talk.correct(rng.choice(open_to_change))
        elif roll > 0.98:
            talk.aside(left)
        elif roll > 0.95:
            talk.unknown(topic)
        else:
            talk.pattern("named" if "name" in talk.told and rng.random() < 0.15 else topic, left)
    if closing:
        talk.pattern("close", 1)
    return "\n".join(talk.turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dialogues", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    phrases, rng = Phrases(), random.Random(args.seed)
    dialogues: dict[str, None] = {}  # in order, without duplicates
    while len(dialogues) < args.dialogues:
        dialogues[compose(phrases, rng)] = None
    args.out.write_text(SEPARATOR.join(dialogues) + "\n", encoding="ascii")
    n_patterns = sum(len(set(map(tuple, blocks))) for blocks in phrases.topics.values())
    print(f"{len(dialogues)} dialogues of {n_patterns} patterns and {len(phrases.facts)} facts")


if __name__ == "__main__":
    main()
