"""How often a corrected answer (``/fix``) is given when the same is asked again.

    python -m tools.measure.fixes [--model NAME|PATH] [--temperature 0.5]

Each of the pairs is asked, corrected and asked again; all are asked once more when the last is corrected, and when
the profile was closed and opened again.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from edgelm.chat import Chat
from edgelm.config import LearnConfig, SampleConfig
from edgelm.runtime import Runtime, RuntimeOptions

PAIRS = {
    "what is my job?": "You are a doctor.",
    "My train was cancelled and now I am stuck.": "How annoying. When does the next one go?",
    "What do you do when you are bored?": "I am never bored. I wait for you.",
    "There is a spider in my bathroom!": "Put a glass over it and carry it outside.",
    "How many hours are there in a day?": "There are 24 hours in a day.",
    "What is nine minus four?": "Nine minus four is five.",
    "Will you remember this conversation tomorrow?": "Yes, I keep what you tell me on this device.",
    "I baked my first loaf of bread yesterday.": "Well done! Was it good?",
    "when does the bin go out?": "On Tuesday evening.",
    "what is the code word?": "The code word is marmalade.",
    "who is coming to dinner?": "Aunt Petra and her two boys.",
    "How can I stop biting my nails?": "Keep them short and your hands busy.",
    "Do you know any good jokes?": "Why did the tomato blush? Because it saw the salad dressing.",
    "where is the spare key?": "Under the blue flower pot.",
    "I don't believe you.": "Fair enough. Please check it elsewhere.",
    "Good night, I am going to bed.": "Sleep tight, captain.",
}


def asked(chat: Chat, text: str) -> str:
    """The answer in a new conversation."""
    chat.reset()
    return "".join(chat.turn(text)).strip()


def n_right(chat: Chat) -> int:
    """How many of all pairs are answered as they were corrected."""
    return sum(asked(chat, text) == answer for text, answer in PAIRS.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--temperature", type=float, default=0.5)
    args = parser.parse_args()
    options, sampling, counts = RuntimeOptions(args.model, seed=1), SampleConfig(temperature=args.temperature), {}
    with tempfile.TemporaryDirectory() as home:
        os.environ["EDGELM_HOME"] = home
        with Runtime(options, LearnConfig(), writable=True) as runtime:
            chat = Chat(runtime, sampling, learn=True)
            counts["before"] = counts["at once"] = 0
            for text, answer in PAIRS.items():
                counts["before"] += asked(chat, text) == answer
                chat.correct(answer).result()
                counts["at once"] += "".join(chat.turn(text)).strip() == answer
            counts["at the end"] = n_right(chat)
            chat.close()
        with Runtime(options, LearnConfig(), writable=True) as runtime:
            runtime.adaptation.catch_up()
            chat = Chat(runtime, sampling, learn=True)
            counts["opened again"] = n_right(chat)
            chat.close()
    print("; ".join(f"{when} {count}" for when, count in counts.items()), "of", len(PAIRS))


if __name__ == "__main__":
    main()
