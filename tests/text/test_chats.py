"""What looks like a chat is told from other texts."""

from __future__ import annotations

import pytest

from edgelm.text.chats import looks_like_chat


@pytest.mark.parametrize(
    "text",
    [
        "User: Hello\nAssistant: Good morning.\n",
        "[12:30] Ada: where are you?\n[12:31] Ben: on the ferry\nin the fog\n",
        "2024-05-01 12:30 Ada: where are you?\n2024-05-01 12:31 Ben: here\n",
        "12/05/2024, 09:31 - Ada Example: where are you?\n12/05/2024, 09:32 - Ben: here\n",
        "Zoë: ça va?\n\nBen: oui\n",
    ],
)
def test_chats(text: str) -> None:
    assert looks_like_chat(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<|doc|>\n",
        "The ferry leaves the island at seven.\nThe baker is the first on board: she brings rolls.\n",
        "Chapter I\n\nHe said: come in.\nNobody came.\nThe lamps were lit.\nIt was late.\nThe fog lifted.\n",
        "What follows was written down by the man who lights the lamps: a list.\nOne.\nTwo.\n",
    ],
)
def test_other_texts(text: str) -> None:
    assert not looks_like_chat(text)
