"""Turns to text: the chat template is the literal lines ``User: `` and ``Assistant: ``."""

from __future__ import annotations

LABELS = ("User", "Assistant")
USER_LABEL = "User:"


def user_turn(text: str) -> str:
    """What a person said, as a line of the conversation."""
    return f"{USER_LABEL} {clean(text)}\n"


def assistant_turn(text: str) -> str:
    """What the model said, as a line of the conversation."""
    return f"Assistant: {clean(text)}\n"


def reply_prompt() -> str:
    """What stands before an answer; the answer begins with a space."""
    return "Assistant:"


def system_text(text: str) -> str:
    """What stands before the first turn."""
    return f"{clean(text)}\n"


def clean(text: str) -> str:
    """A turn without white space around it; a label within cannot start a line, so it cannot forge a turn."""
    lines = text.strip().splitlines()
    safe = [" " + line if line.startswith(tuple(f"{label}:" for label in LABELS)) else line for line in lines]
    return "\n".join(safe).strip() if safe else ""
