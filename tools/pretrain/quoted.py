"""Makes dialogues from what the people of stories say to each other.

    python -m tools.pretrain.quoted CORPUS OUT.txt --sources books_en children_stories

Two paragraphs that follow each other and both hold speech in double quotes are a remark and its reply. Only the
speech is kept: ``"Come," said he, "and see."`` becomes ``Come, and see.`` A paragraph in which two people speak ends a
run, and so does one that is in dialect, old-fashioned or grim, or whose quotes do not match. A run becomes dialogues of
two to six turns. Of a long turn only the first sentences stay, as a reply, and the last, as a remark.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgelm.text.tokenizer import DOC_LINE
from tools.pretrain.corpus import read_documents

SHORTEST, LONGEST, MOST = 3, 200, 6
"""Characters of a turn, and turns of a dialogue."""
SAYS = re.compile(
    r"\b(said|says|asked|cried|replied|answered|exclaimed|whispered|shouted|returned|remarked|added|observed|inquired|"
    r"continued|muttered|murmured|demanded|declared|repeated|went on)\b"
)
DIALECT = re.compile(
    r"(?<!\w)'(em|tis|twas|twere|twill|twould|tisn't|un|er|e|im|is|ave|ad|ere|ow|old|most|bout|cause|round|pon|way|"
    r"fore|deed|nuff|spect|s|course|low)\b|"
    r"\b(o|th|an|wi|d|goin|nothin|somethin|anythin|comin|doin|bein|lookin|gettin|havin|talkin|ol|jes|an|mo|po|fo|"
    r"[a-z]{2,}in|t|ag'in|s'pose|ne|e|e'en|o'er|ne'er|ma|whate)'(?!\w)|"
    r"\b(ye|thou|thee|thy|thine|hath|doth|dost|hast|art thou|thar|dat|dis|de|dem|dey|den't|ain't|hain't|warn't|ain|"
    r"yer|yar|sez|sech|git|ketch|ter|jest|jist|kin|fer|whar|heah|nuthin|nothin|ole|marster|massa|missus|wuz|wus|"
    r"reckon|ef|ez|hev|hed|gits|gwine|gwineter|dunno|bin|tuk|kase|afore|nigh|yonder|wot|wich|wery|sur|zur|zir|feyther|"
    r"mout|oncet|sartin|sartain|critter|varmint|pore|durn|durned|dern|tarnation|bein|wi|nae|dinna|canna|wee|aye|ay|"
    r"ken|bairn|lass|lassie|laddie|auld|mon|och|begorra|sure an|bedad|alas|prithee|methinks|verily|lo|forsooth|nay|"
    r"shalt|wilt|hither|thither|whither|wherefore|henceforth|behold|betwixt|o'|thu|dost|didst|canst|mayst|wouldst|"
    r"wast|wert|quoth|thyself|yea|oft|ere|wouldna|didna|isna|mair|hae|frae|guid|aught|naught|nought|'tis|"
    r"i|im|dont|a-\w+|ah|hoo|yo|sah|suh|honey|chile|pa'son|hisself|theirselves|knowed|growed|seed|heerd|throwed|"
    r"nigger\w*|negro\w*|darky|darkies|coon|injun\w*|squaw|jew|damn\w*|damned|hell|bitch|bastard|whore|ass|"
    r"don\.|mynheer|monsieur|madame|senor|senora|signor|mademoiselle|mein|herr|sahib|effendi)\b(?!')|"
    r"\bO [A-Za-z]|\w'd'|\w'\w+'|(?<!\w)'|(?<!s)'(?!\w)|\bcap'n|\b[A-Z]-[A-Z]|[\[\]_*~=<>{}|\\#^]|\d{4}|----|\.\.\.\.",
)
QUOTED = re.compile(r"(?<!\w)'[A-Z][^']*'(?!\w)")
GRIM = re.compile(
    r"\b(kill\w*|murder\w*|shoot\w*|shot|guns?|pistols?|rifles?|revolvers?|corpses?|hanged|blood\w*|stab\w*|suicide|"
    r"slaves?|savages?|cannibals?|rape\w*|drunk\w*|whisk(e)?y|brandy|devil\w*|fools?|idiots?|scoundrels?|rascals?|stupid|"
    r"villains?|wretch(es)?|damnation|heathens?|gypsy|gypsies|chinaman|chinamen|ladylove|thrash\w*|flog\w*|whipped)\b",
    re.IGNORECASE,
)
SPEECH = re.compile(r'"([^"]*)"')


def speech(paragraph: str) -> str | None:
    """What is said in a paragraph; None when nobody speaks, two people do, or its quotes do not match."""
    if paragraph.count('"') % 2 or '"' not in paragraph:
        return None
    outside = SPEECH.sub("\n", paragraph)
    if len(SAYS.findall(outside)) > 1:
        return None
    if '" "' in paragraph:
        return None
    text, end = "", 0
    for found in SPEECH.finditer(paragraph):
        piece, narrated = found[1].strip(), paragraph[end : found.start()].strip()
        if not text and piece[:1].islower():
            return None
        if text.endswith(",") and narrated.endswith((".", "!", "?")) and not piece[:1].islower():
            text = text[:-1] + "."
        text, end = f"{text} {piece}".strip(), found.end()
    return finish(text)


def finish(text: str) -> str:
    """Speech with a full stop where a comma or a dash led to the narration."""
    text = re.sub(r"\s+", " ", text)
    if re.search(r"\w\s*-+$", text):
        text = text.rstrip("- ") + "..."
    text = text.rstrip(",;: -")
    text = re.sub(r"\s*-{2,}\s*", " - ", re.sub(r"(\.\s?){3,}", "... ", text)).strip()
    return text + "." if text and text[-1] not in ".!?" else text


def is_plain(text: str) -> bool:
    """Whether a turn is of a good length and in plain modern English."""
    if not SHORTEST <= len(text) <= LONGEST or not text.isascii() or GRIM.search(text):
        return False
    outer = QUOTED.sub("", text)
    if DIALECT.search(outer) or DIALECT.search(re.sub(r"\b[A-HJ-Z]", lambda found: found[0].lower(), outer)):
        return False
    letters = re.sub(r"[^A-Za-z]", "", text)
    words = re.findall(r"[A-Za-z]+", text)
    shouted = sum(len(word) > 1 and word.isupper() for word in words)
    named = sum(word[0].isupper() for word in words[1:] if word != "I")
    return text[0].isupper() and len(letters) > 0.6 * len(text) and not shouted and named <= 1 + len(words) / 4


def dialogues(document: str) -> Iterator[list[str]]:
    """The dialogues of a chapter, each a list of remarks and replies; of an odd run the last two turns make another."""
    run: list[str] = []
    for paragraph in [*filter(None, map(str.strip, document.splitlines())), ""]:
        said = speech(paragraph) or ""
        begin, end = (said, said) if len(said) <= LONGEST else shortened(said)
        if is_plain(begin):
            run.append(begin)
            if len(run) < MOST and begin == end:
                continue
        if len(run) > 1 and len(run[0].split()) == 1:
            run = run[1:]
        if len(run) > 1:
            yield run[: len(run) // 2 * 2]
        if len(run) > 2 and len(run) % 2:
            yield run[-2:]
        run = [end] if begin != end and is_plain(end) else []


def shortened(said: str) -> tuple[str, str]:
    """The first sentences of a long turn, which reply to the one before, and the last, which the next replies to."""
    sentences = re.split(r"(?<=[^.][.!?]) (?=[A-Z])", said)
    begin, end = sentences[0], sentences[-1]
    for sentence in sentences[1:]:
        if len(begin) + len(sentence) >= LONGEST:
            break
        begin += " " + sentence
    for sentence in sentences[-2::-1]:
        if len(end) + len(sentence) >= LONGEST:
            break
        end = sentence + " " + end
    return begin, end


def documents(chapters: Iterable[str]) -> Iterator[str]:
    """The dialogues of chapters as documents, each once."""
    seen: set[str] = set()
    for chapter in chapters:
        for turns in dialogues(chapter):
            text = "".join(f"{('User', 'Assistant')[i % 2]}: {said}\n" for i, said in enumerate(turns))
            if text not in seen and " " in turns[0]:
                seen.add(text)
                yield text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sources", nargs="+", default=["books_en"])
    args = parser.parse_args()
    made = list(documents(chapter for name in args.sources for chapter in read_documents(args.corpus, name)))
    args.out.write_text(f"{DOC_LINE}\n".join(made), encoding="utf-8")
    pairs = sum(text.count("\n") for text in made) // 2
    print(f"{args.out}: {len(made):,} dialogues, {pairs:,} pairs")


if __name__ == "__main__":
    main()
