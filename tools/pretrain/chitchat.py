"""Makes dialogues from the small talk of students in the chitchat dataset (MIT).

    python -m tools.pretrain.chitchat DATASET.json OUT.txt

The dataset is one JSON file of conversations between two people. Each conversation is read twice, with either person
as the assistant. Messages are tidied: laughter, emoticons and slang go, capitals and full stops come. A dialogue is
cut where somebody is crude or talks of the app, of drugs, of church or of a person by name, where a word is rare (most
such words are typing errors), and where the assistant would claim a body or a biography, which it does not have. A
piece begins with a turn that can be understood alone and holds 1 to 12 exchanges.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from edgelm.text.tokenizer import DOC_LINE

LONGEST, MOST = 300, 12
"""Characters of a turn, and exchanges of a piece."""
FASTEST, LATEST = 7.0, 600.0
"""Characters typed in a second, and seconds of a pause: a message sooner or later does not answer the one before it."""
COMMON, CROSSED = 8, "#"
"""How often the dataset must hold a word for it to be one; what stands in a turn that answers nothing."""

COMMONEST = frozenset(["what", "would", "your", "that", "with", "have", "about", "like", "think", "when"])
BARRED = re.compile(
    r"(?i)https?:|www\.|@|%|\.(com|org|net)\b|\d{3}[-. ]?\d{4}|#|[<>{}\[\]\\|_^~=]|\b(fu?ck\w*|f+u+|wtf|stfu|shit\w*|"
    r"bull|crap\w*|damn\w*|dang\w*|hell|heck|ass|asses|asshole\w*|bitch\w*|bastards?|dick\w*|cock|penis\w*|vagina\w*|"
    r"boob\w*|tits?|butts?|poop\w*|pee\w?|fart\w*|turds?|piss\w*|puke\w*|vomit\w*|barf\w*|diarr?h?ea|sex\w*|porn\w*|"
    r"naked|nude\w*|horny|virgin\w*|hook(ed)? up|make ?out|making out|kiss\w*|slut\w*|whore\w*|rape\w*|gay\w*|"
    r"lesbian\w*|homo\w*|trans\w*|straight guy|condom\w*|pregnan\w*|period|hot (guy|girl)s?|thicc|bang|stripper\w*|"
    r"hooker\w*|nigg\w*|negro\w*|fag\w*|retard\w*|spaz|midget\w*|idiot\w*|stupid\w*|dumb\w*|moron\w*|loser\w*|ugly|"
    r"shut up|creep\w*|hate you|sucks?|sucked|jerks?|lame|freaking|freakin|frickin\w*|fricking|flippin\w*|screw\w*|"
    r"drugs?|weed|marijuana|cocaine|heroin|meth|lsd|acid|stoned|vap(e|ing)|drunk|alcohol\w*|beers?|vodka|wine|whiskey|"
    r"wasted|smok\w*|cigar\w*|suicid\w*|kill\w*|murder\w*|dead|died|dying|racis\w*|race|blacks|nazis?|hitler|trump|"
    r"hillary|obama|democrat\w*|republican\w*|politic\w*|abortion|guns?|terroris\w*|isis|bomb\w*|shoot\w*|blood\w*|app|"
    r"apps|survey\w*|chat ?bots?|bots?|ai|mechanical|prompts?|chit ?chat|conversations?|chats|leaderboard\w*|points?|"
    r"prize\w*|contest|competition|ratings?|rate|rated|topic\w*|chatter\w*|scor\w*|challenge|on here|user\w*|"
    r"serve[ds]?|progress|win|winner|winning|dataset|research|this (chat|question)|the question|notif\w*|raffle\w*|"
    r"threshold|ut|rounds?|(first|second|third) place|top (five|ten|\d+)|(an?|real|actual|you) (human|robot|computer|"
    r"person|program)|talk(ing)? to (someone|people)|talk(ed|ing) (to|with) you (before|again|earlier)|you again|sfl|"
    r"efy|hs|chit-chat|were straight|jaezo|emma|disappeared|left off|comp|macbook|history|you are back|you're back|"
    r"(any|some)(one|body) (is|actually) |pair\w*|chat (around|with)|chatt(ing|ed)|(any|some)(one|body) (else )?(on|"
    r"there)|people on|hello again|you and me then|words|strangers?|talk(ing)? with you again|same person|"
    r"disconnect\w*|tabs?|match(ed|ing)?|\d+th place|welcome back|shaw|sailor|isaac|heleman|what up|profs?|"
    r"are you there|you there|still there|adam|your name|pray\w*|emojis?|timer|typing|typed?|typos?|autocorrect|gifs?|"
    r"messag\w*|giphy|anonymous\w*|tinder|snapchat|byu\w*|utah|provo|orem|lds|mormons?|church\w*|bishop\w*|missions?|"
    r"missionar\w*|temples?|god|gods|jesus|christ\w*|lord|gospel|scriptures?|bible|pray\w*|heaven\w*|satan|devil|"
    r"wards?|stake|fhe|prophets?|elders?|priest\w*|relig\w*|elder|baptiz\w*|spirit\w*|conference|ysa|byui|devotional|"
    r"holy|sins?|atheis\w*|muslim\w*|jew\w*)\b",
)  # fmt: skip
NOISE = re.compile(
    r"(?i)\*+[^*]*\*+|\b(a?(ha){2,}h?|hah+|ha+|a+ha+h[ah]*|b?wa(ha)+|[ab]*(h+a+){2,}h*|ah+ha\w*|he(he)+h?|l+o+l+z?|"
    r"lolol\w*|lmf?ao+|rofl|jk|j/k|xd+|omg|omw|smh|dudes?|bros?|bruh|homie|buddy|bud|my (man|dude|guy|friend)|"
    r"(?<=hey )(girl|man|friend)|(?<=hi )(girl|man|friend)|(?<=up )girl|(girl|man)(?=[,!. ]*$)|like,(?= ))(?![\w'])|"
    r"(?<!\w)([:;=]'?-?[()DPpO/3|*]+|[xX]D|<3|:o|\^_*\^|-_+-|[(]:|D:)(?!\w)",
)  # fmt: skip
VERB = "find|be|do|go|get|have|take|tell|try|let|say|make|see|just|probably|never|give|keep|talk|walk"
AFTER_IS = "a|an|the|so|not|been|really|just|like|good|pretty|that|all|very|my|fun|hard|too|always|cool|going"
MENDED = [
    (re.compile(pattern), new)
    for pattern, new in (
        (rf"\b[Ii]ll(?= ({VERB})\b)", "I'll"),
        (rf"\b([Ii])ts(?= ({AFTER_IS})\b)", r"\1t's"),
        (r"(?<=see|for|are|how|now|did|ank|ove|hat|out|ell|ear|ave) ya\b", " you"),
        (r"\bya\b", "yeah"),
        (r"(^|[.!?] )Its\b", r"\1It's"),
        (r"\b([Yy])our(?= (welcome|right|so|not|a|the|going|doing|good|very|really|kidding)\b)", r"\1ou're"),
        (r"\b([Mm])e to(?=$|[.!?])", r"\1e too"),
        (r"(?<=[a-z]) (?=(And|But|So|How|What|That's|It's|It|You|Why|Do|Are|We|They)\b)", ". "),
        (r"(?<=[a-z]) Like\b", " like"),
    )
]
OF_A_PERSON = re.compile(r"(?i)\b(a|the|this|that|some|old|one|of|these|those|his|her|your|as) (dude|bro|guy|girl)s?\b")
SPELLING = (
    "im=I'm,ive=I've,i'm=I'm,i've=I've,i'd=I'd,i'll=I'll,i=I,id=I'd,dont=don't,doesnt=doesn't,didnt=didn't,"
    "cant=can't,wont=won't,isnt=isn't,arent=aren't,wasnt=wasn't,werent=weren't,couldnt=couldn't,wouldnt=wouldn't,"
    "shouldnt=shouldn't,havent=haven't,hasnt=hasn't,hadnt=hadn't,thats=that's,whats=what's,hows=how's,wheres=where's,"
    "theres=there's,whos=who's,youre=you're,youve=you've,youll=you'll,theyre=they're,theyve=they've,itll=it'll,"
    "aint=isn't,ain't=isn't,y'all=you,yall=you,u=you,ur=your,r=are,yea=yeah,yah=yeah,yep=yes,yup=yes,yeh=yeah,"
    "ye=yeah,nah=no,na=no,nope=no,bc=because,cuz=because,cus=because,coz=because,'cause=because,b/c=because,"
    "tho=though,thru=through,thx=thanks,pls=please,plz=please,alot=a lot,wierd=weird,definately=definitely,"
    "definatly=definitely,def=definitely,probs=probably,prolly=probably,tbh=to be honest,idk=I don't know,"
    "btw=by the way,rn=right now,dunno=don't know,lemme=let me,gimme=give me,gonna=going to,wanna=want to,"
    "gotta=have to,kinda=kind of,sorta=sort of,hafta=have to,bout=about,highschool=high school,hes=he's,shes=she's,"
    "cool beans=cool,legit=really,ppl=people,tv=TV,dvd=DVD,ok=okay,k=okay,kk=okay,okey=okay,obv=obviously,"
    "obvi=obviously,fav=favorite,fave=favorite,favs=favorites,favourite=favorite,english=English,spanish=Spanish,"
    "french=French,chinese=Chinese,japanese=Japanese,german=German,american=American,cause=because,iphone=iPhone,"
    "youtube=YouTube,facebook=Facebook,google=Google,america=America,christmas=Christmas,halloween=Halloween,"
    "disney=Disney,netflix=Netflix,monday=Monday,tuesday=Tuesday,wednesday=Wednesday,thursday=Thursday,friday=Friday,"
    "saturday=Saturday,sunday=Sunday,hawaii=Hawaii,california=California,europe=Europe,italian=Italian,"
    "mexican=Mexican,starwars=Star Wars,till=until,til=until,em=them,'em=them,hiya=hi,heya=hey,heyo=hey,helo=hello,"
    "sup=what's up,wassup=what's up,whatsup=what's up,watcha=what are you,whatcha=what are you,everytime=every time,"
    "atleast=at least,infact=in fact,aswell=as well,gunna=going to,goin=going,doin=doing,awsome=awesome,"
    "beautful=beautiful,truee=true,realy=really,teh=the,becuase=because,beacuse=because,wich=which,freind=friend,"
    "freinds=friends,recieve=receive,untill=until,tommorow=tomorrow,tomorow=tomorrow"
)
SPELLED: dict[str, str] = dict(re.findall(r"([^,=]+)=([^,]+)", SPELLING))
SLANG = re.compile(
    r"(?i)\b(af|fam|lit|yo|yolo|swag|meh|ew+|ugh|tf|ikr|imo|imho|irl|ngl|bff|bae|salty|savage|sus|dope|sick|ratchet|"
    r"yeet|hmu|fyi|nvm|ily|gf|bf|sis|hubby|boi|gurl|ooh?|ah|eh|uh|um|er|hm+|mhm|welp|duh|lel|kek|wut|wat|dat|dis|da|"
    r"kewl|gr8|b4|cya|ttyl|brb|stalk\w*|cougar|daddy|girlfriends?|flirt\w*|dated?|dating|boyfriends?)\b",
)  # fmt: skip
NAMED = re.compile(r"(?i)\b(hi|hey|hello|thanks|sorry|bye|goodnight|morning|night|you|up),? (?-i:[A-Z])[a-z]+\b")
ADVERB = (
    r"(?:(?:also|really|just|actually|always|definitely|totally|still|do|don't|did|didn't|can|can't|would|wouldn't|"
    r"could|couldn't|never|honestly|personally|kind of|certainly|truly|only|too|mostly|usually|probably|completely|so|"
    r"guess|absolutely|think|feel like|mean|sure|will|won't|might|may|must|should|shouldn't|have to|need to|want to) )*"
)
FINE_I = (
    r"think|like|love|hope|guess|agree|know|mean|see|wonder|feel like|believe|suppose|bet|wish|want|prefer|understand|"
    r"appreciate|imagine|say|assume|doubt|figure|enjoy|relate|recommend|suggest|admit|hear|heard|ask|tell|try|choose|"
    r"pick|go with|be|do|can|could|would|will|might|think so|disagree|get it|get that|get what|get you|care|mind|"
    r"forgot|thought|meant|said|hate|did not|don't|can't|wouldn't|couldn't|do too|have no|have to"
)
FINE_AM = (
    r"sorry|sure|not sure|glad|good|well|great|fine|happy|okay|alright|excited|curious|so|pretty|very|really|doing|not|"
    r"all|also|the same|with you|down|in|impressed|interested|jealous|pretty sure|more|totally|a (?:big |huge )?fan|"
    r"afraid|a little|too|always|definitely|still|just|here|fantastic|wonderful|grateful"
)
BODY = re.compile(
    r"(?i)\b(eat|ate|eating|drink|sleep\w*|slept|nap\w*|wak(e|ing)|woke|walk\w*|run|running|ran|driv\w*|drove|"
    r"shower\w*|cook\w*|bak(e|ed|ing)|class|classes|homework|school|college|work|working|worked|job|home|bed|weekend|"
    r"finals?|exams?|tests?|gym|tired|hungry|sick|thirsty|married|engaged|wife|husband|wedding|study\w*|studi\w*|"
    r"semester|major\w*|internship|summer|spring break|roommates?|apartment|dorm|moved?|moving|grew up|born|kids?|"
    r"child|when I was|years? (ago|old)|mom|dad|mother|father|parents?|brothers?|sisters?|siblings?|family|cousins?|"
    r"uncle|aunt|grand\w+|friends?|dogs?|cats?|pets?|car|bike|phone|laptop|hair|face|eyes?|hands?|legs?|arms?|head|"
    r"stomach|body|taste[sd]?|smell\w*|yesterday|last (night|week|year|month|time)|this morning|tonight|today|tomorrow|"
    r"travel\w*|trips?|vacation|visit\w*|play\w*|danc\w*|sing\w*|guitar|piano|sport\w*|team|hik(e|es|ed|ing)|ski\w*|"
    r"swim\w*|camp\w*|surf\w*|girls?|boys?|guys?|man|woman|student|freshman|sophomore|junior|senior|teacher|lunch|"
    r"dinner|breakfast|money|bought|buy|live|lived|living|watch\w*|cried|cry\w*|busy|meet|met|there|been|stay(ed)?|go|"
    r"going|gone|wear\w*)\b",
)  # fmt: skip
CLAIM = re.compile(
    rf"\bI (?!{ADVERB}(?:{FINE_I})\b)|\bI'm (?!(?:{FINE_AM})\b)|\bI've (?!(?:heard|always|never) ?(?:of|that|wanted|"
    rf"thought|"
    r"loved|liked|heard)?\b)|\bI had\b|\b[Jj]ust (?:\w+ )?[a-z]+ing\b|\bI'd (?!(?:love|like|say|rather|be|have to|"
    r"prefer|probably|go|choose|pick|want)\b)|\b[Mm]y (?!(?:favorites?|opinion|guess|mind|bad|pleasure|goodness|"
    r"thoughts?|question|personal)\b)|\bmine\b|\bI'm (?:\w+ )?into\b|\b(here|outside)\b|\b(Sadly|Also|But|And|Yeah|Yes|"
    r"No|Nope|Oh),? (don\'t|didn\'t|haven\'t|wasn\'t)\b|\bI (?:\w+ )?(?:want|like|love|enjoy|hope|plan|wanted)(?:d|"
    r"s)? to (?:\w+ )?(?!(?:see|hear|know|think|say|learn|read|believe|ask|imagine|talk|help|be able)\b)[a-z]+|"
    r"\bI (?:\w+ )?(?:like|love|enjoy|hate) (?!reading|learning|talking|hearing|thinking|anything|something|everything|"
    r"nothing|morning|evening|spring)[a-z]+ing\b|\bmyself\b|\b(our|ours|us|we're|we've|we'll|we'd)\b|\bwe (?!(?:should|"
    r"could|can|all|need|have|think|know|want|see|live|do)\b)|\b(with|told|at|gave|made|near|took|texted|asked|taught|"
    r"got|happened to|from) me\b|\b[Mm]e and\b|\b(and|or) I\b|\bI(?:'m)? (?:also |just |really |still |so )*(?:from|in|"
    r"at|on|a|an|the|doing (?!good|well|great|fine|okay|alright|pretty|just fine|really|very|awesome|amazing|"
    r"fantastic))\b|(^|[.!?,] )(?:Just|Currently|Still|Been|Also|Only|Not much)?,? ?(?:[A-Z]?[a-z]+ing (?!to me|else|"
    r"is|like)|[Gg]ot|[Ww]ent|[Tt]old|[Hh]ad|[Ww]as|[Aa]te|[Ss]aw|[Ff]rom|[Dd]id|[Hh]aven't|[Bb]een|[Hh]ave (?!you|a|"
    r"fun)|[Tt]ook|[Mm]ade|[Ff]inished|[Ww]oke|[Pp]lay|[Pp]layed|[Ww]atched|[Ll]ived|[Gg]oing|[Aa]m|[Hh]ome|[Ww]ork|"
    r"[Ss]chool)\b|\b[Mm]y name|\byears old\b|\bthis is [A-Z]|\bI am [A-Z]|\bI'm [A-Z]",
)  # fmt: skip
OPINION = (
    r"like|think|know|believe|prefer|agree|love|mean|feel|want|there|doing|good|sure|kidding|okay|ready|wish|hate|say|"
    r"ever wonder|ever think|care|remember|understand|suggest|recommend|enjoy|choose|pick|excited|rather|wonder"
)
BIOGRAPHY = re.compile(
    rf"(?i)\b(do|did|have|are|were|will|would|can|could|don't|aren't|haven't|you) you (?!(?:even |also |really |"
    rf"just )?(?:{OPINION})\b)|"
    r"\byour (?!(?:favorites?|opinion|thoughts?|advice|guess|idea)\b)|\b(where|when|who) (are|do|did|were|have|"
    r"would) you\b|\bhow (old|long|many|often|was|were|big|far|much|tall|did)\b|\bwhat (was|were|happened|did)\b|"
    r"\b(where|when) (is|was)\b|\bwhy (did|do|are|were) (you|they)|\byou (from|study|studying|married|work|live|play|"
    r"go|up to|been|ever been|single|going)\b|\bwhat (do|did|have|were|about|are|year|school|major|kind|made|brings?|"
    r"brought) you(?! (think|like|mean|want|prefer|believe|know|say|suggest|recommend|feel|love|wish))|\b(what's up|"
    r"your name|what year|what major|how is (school|life|work)|how's (school|life|work|the weather))\b|\bwhat (kind|"
    r"type|sort|else|classes|instruments?|sports?|languages?|year|part|state|country)\b.* (do|did|are|"
    r"have) you (?!like|think|want|love|prefer|enjoy)|^(you|how about you|what about you|and you|yourself)\?|\b(how|"
    r"what) about (you|yourself)\?|\band you\?|\bwbu\b|\bhbu\b",
)  # fmt: skip
WELL = re.compile(r"(?i)\b(how are you|how is it going|how's it going|how have you been|how do you do)\b")
FEELS = re.compile(r"^(?:\w+[,.!] )?(I'm|I am|I|Pretty|Doing|Very|Good|Great|Fine|Well|Not bad|Thanks)\b")
ECHO = re.compile(r"(?i)\b(me too|me neither|same|so do I|so am I|neither do I|I do too|I am too|I also|likewise)\b")
GREETING = re.compile(r"(hi|hello|hey|good (morning|evening|afternoon)|what's up|howdy|greetings)\b", re.IGNORECASE)
BEGINS = re.compile(
    r"(I(?! (know|see|also|still|probably|have no|have like|guess|do|did|don't know|get|totally|then|was)\b)|"
    r"I'm(?! (not|also|so))|I've|My|We|The(?! (day|time|best|one|most|only))|People|Everyone|Every|If|When|What|How|"
    r"Where|Why|Who|Which|Do|Did|Are|Have|Can|Could|Would|Tell me about|Is|Does|Let's|Sometimes|Some|Most|What's|Today|"
    r"Yesterday|Tomorrow|Life|Music|Books)\b"
)  # fmt: skip
LINKED = re.compile(
    r"(?i)\b(it|that|that's|it's|those|them|they|they're|he|she|him|her|his|too|also|either|there|this|these|same|"
    r"agree|one|ones|would|do|did|was|am|have|know|guess|mean|think so|can|already|still|else|other|such|yet|did not|"
    r"didn't|don't|haven't)\b[.!,]|\b(it|that|that's|it's|those|them|they|they're|he|she|him|her|too|either|"
    r"this(?! (summer|week|year|morning|evening|fall|spring))|these|same|agree|ones|would|I'd)\b",
)  # fmt: skip
ANSWERS = re.compile(r"\b(I'm|I am|it is|it's|doing|going|good|great|pretty|fine|well)\b", re.IGNORECASE)
HOW = re.compile(r"\b(how (are|is|have)|how's|good (morning|evening|afternoon))\b.*", re.IGNORECASE)
CUT_SHORT = re.compile(
    r"\b(the|a|an|of|to|and|but|with|for|my|is|are|I|or|if|than|your|at|because|was|am|I'm|would)[.?]( |$)"
)
ASKS = re.compile(
    r"(?i)(what|how|where|when|why|who|which|do|does|did|are|is|have|can|could|would|will|was|were) (you|your|are|is|"
    r"do|does|did|it|that|was|were|kind|about|would|have|can|there|they|the|about)\b|what's|how's|where's",
)  # fmt: skip


class Words:
    """The words that the dataset holds often enough to be spelled right."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._seen = Counter(word for text in texts for word in self._of(text))

    def known(self, text: str) -> bool:
        """Whether every word of a text is one."""
        return all(self._seen[word] >= COMMON and (len(word) > 1 or word in "ai") for word in self._of(text))

    def _of(self, text: str) -> list[str]:
        return re.findall(r"[a-z]+", text.lower().replace("'", ""))

    def shorten(self, found: re.Match[str]) -> str:
        """A word without letters said at length: ``sooo`` becomes ``so``."""
        once, twice = (re.sub(r"([a-z])\1{2,}", to, found[0], flags=re.IGNORECASE) for to in (r"\1", r"\1\1"))
        return max(once, twice, key=lambda word: self._seen[word.lower()])


def plain(text: str) -> str:
    """A text in ASCII: straight quotes, letters without accents, no emoji."""
    for old, new in (("‘", "'"), ("’", "'"), ("“", '"'), ("”", '"'), ("…", "..."), ("—", " - "), ("–", " - ")):
        text = text.replace(old, new)
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def spell(found: re.Match[str]) -> str:
    """A word of chat as it is spelled elsewhere."""
    word = found[0]
    new = SPELLED.get(word.lower(), word)
    return new[0].upper() + new[1:] if word[0].isupper() and word[1:].islower() else new


def capital(found: re.Match[str]) -> str:
    """A word with one capital."""
    return found[0].capitalize()


def tidy(text: str, words: Words) -> str:
    """A message with capitals and marks, without laughter and slang; empty when nothing is left."""
    text = NOISE.sub(" ", plain(text))
    text = re.sub(r"\b[a-z]*([a-z])\1{2,}[a-z]*\b", words.shorten, text, flags=re.IGNORECASE)
    text = re.sub(r"\b(HI|OH|SO|NO|HEY|YES|WOW|LOVE|YEAH|WHAT|THAT|WHY|[A-Z]{2}(?!s\b)[a-z]+)\b", capital, text)
    text = re.sub(r"[a-z]+(?:['/][a-z]+)?", spell, text, flags=re.IGNORECASE)
    text = re.sub(r"\.{2,}", ", ", text).replace("!1", "!")
    text = re.sub(r"[!?]*\?[!?]*", "?", re.sub(r"!+", "!", text))
    text = re.sub(r"\s+", " ", text)
    for pattern, new in MENDED:
        text = pattern.sub(new, text)
    text = re.sub(r" ([,.!?])", r"\1", text)
    text = re.sub(r"(?:, ?)+([,.!?])", r"\1", text)
    text = re.sub(r"([,.!?])\1+", r"\1", text).strip(" ,.-*;:&)/'")
    text = re.sub(r"([.!?]) *([!?.])", r"\1", text.lstrip("!? "))
    if not re.search(r"[A-Za-z]", text):
        return ""
    text = re.sub(r"(^|[.!?] )([a-z])", lambda found: found[1] + found[2].upper(), text)
    if text[-1] not in '.!?"':
        text += "?" if ASKS.match(re.split(r"[.!?] ", text)[-1]) and len(text) < 90 else "."
    return text


def turn(messages: list[str], words: Words) -> str | None:
    """The messages of a turn as one text; None where the dialogue must be cut, empty when nothing is left."""
    parts = []
    for message in messages:
        if message.lstrip().startswith("*") or message.rstrip().endswith("*"):
            continue
        text = plain(message)
        if message == CROSSED or BARRED.search(text) or OF_A_PERSON.search(text):
            return None
        if part := tidy(message, words):
            parts.append(part)
    sentences = re.split(r"(?<=[.!?]) ", " ".join(parts))
    joined = " ".join(text for i, text in enumerate(sentences) if text not in sentences[:i])
    if joined.count("(") != joined.count(")") or joined.count('"') % 2:
        joined = re.sub(r'[()"]', "", joined)
    if CUT_SHORT.search(joined) or "Hello?" in joined:
        return None
    letters = re.sub(r"[^A-Za-z]", "", joined)
    shouted = sum(letter.isupper() for letter in letters) > 0.4 * len(letters) > 2
    if len(joined) > LONGEST or shouted or SLANG.search(joined) or NAMED.search(joined) or not words.known(joined):
        return None
    return joined


def claims(said: str, reply: str) -> bool:
    """Whether a reply claims a body, a biography or an identity, or answers a question about one."""
    if CLAIM.search(reply) or (reply.startswith("Because") and "why" not in said.lower()):
        return True
    for sentence in re.split(r"(?<=[.!?]) ", reply):
        if re.search(r"\b(I|I'm|I've|I'd|I'll|me|my|we)\b", sentence) and BODY.search(sentence):
            return True
    if WELL.search(said) and any(BODY.search(part) for part in re.split(r"(?<=[.!?]) ", reply) if "?" not in part):
        return True
    if "?" in said and re.search(r"\b(he|she|his|her|him)\b", reply, re.IGNORECASE):
        return True
    if BIOGRAPHY.search(WELL.sub("", said)) and not (said.lower().startswith("you ") and "?" not in said):
        return not (WELL.search(said) and FEELS.match(reply))
    return bool(ECHO.search(reply) and (CLAIM.search(said) or BODY.search(said)))


def turns_of(conversation: dict[str, Any], words: Words) -> list[tuple[str, str | None]]:
    """The speakers of a conversation and their turns in order."""
    messages: list[tuple[str, list[str]]] = []
    before = datetime.min
    for message in (message for group in conversation["messages"] for message in group):
        now = datetime.strptime(message["timestamp"], "%Y-%m-%dT%H:%M:%SZ")
        if not messages or messages[-1][0] != message["sender"]:
            messages.append((message["sender"], []))
            seconds = (now - before).total_seconds()
            if len(messages) > 1 and not len(message["text"]) / FASTEST < seconds < LATEST:
                messages[-1][1].append(CROSSED)
        messages[-1][1].append(message["text"])
        before = now
    turns: list[tuple[str, str | None]] = []
    for speaker, texts in messages:
        if (text := turn(texts, words)) == "":
            continue
        if turns and turns[-1][0] == speaker:
            turns[-1] = (speaker, None)
        else:
            turns.append((speaker, text))
    return turns


def alone(text: str) -> bool:
    """Whether a turn can begin a piece: a greeting, or words that lean on nothing said before."""
    first = re.split(r"(?<=[.!?]) ", text)[0]
    if re.search(r"\b(yeah|yes|no|oh|wait|though|same|also|true|okay)\b", text, re.IGNORECASE):
        return False
    if GREETING.match(text):
        return not ANSWERS.search(HOW.sub("", text)) and (len(text.split()) < 6 or not LINKED.search(HOW.sub("", text)))
    return len(first.split()) >= 4 and bool(BEGINS.match(text)) and not LINKED.search(first)


def answers(prompt: str, text: str) -> bool:
    """Whether the first turn of a conversation answers the prompt that both were shown: it shares a long word."""
    long, short = (set(re.findall(r"[a-z]{4,}", part.lower())) - COMMONEST for part in (prompt, text))
    return bool(long & short) and "?" not in text and len(text.split()) >= 4


def pieces(turns: list[tuple[str, str | None]], assistant: str) -> Iterator[str]:
    """The pieces of a conversation in which one of the speakers can be the assistant."""
    said: list[str] = []
    for (_, text), (speaker, reply) in itertools.pairwise(turns):
        if speaker != assistant:
            continue
        if text is None or reply is None or claims(text, reply):
            yield from written(said)
            said = []
        elif said or alone(text):
            said += [text, reply]
            if len(said) >= 2 * MOST:
                yield from written(said)
                said = []
    yield from written(said)


def written(said: list[str]) -> Iterator[str]:
    """A piece as text up to its last reply of more than two words, if it has one."""
    while said and len(said[-1].split()) < 3:
        said = said[:-2]
    if said:
        yield "".join(f"{('User', 'Assistant')[i % 2]}: {text}\n" for i, text in enumerate(said))


def documents(dataset: dict[str, Any]) -> list[str]:
    """The pieces of all conversations, either way round, each once."""
    words = Words(plain(m["text"]) for talk in dataset.values() for group in talk["messages"] for m in group)
    made: dict[str, None] = {}
    for talk in dataset.values():
        turns = turns_of(talk, words)
        prompt = talk.get("prompt") or ""
        if turns and (first := turns[0][1]) and answers(prompt, first):
            turns.insert(0, ("", turn([prompt], words)))
        for assistant in dict.fromkeys(speaker for speaker, _ in turns):
            made.update(dict.fromkeys(pieces(turns, assistant)))
    return list(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    made = documents(json.loads(args.dataset.read_text("utf-8")))
    random.Random(args.seed).shuffle(made)
    args.out.write_text(f"{DOC_LINE}\n".join(made), encoding="utf-8")
    print(f"{args.out}: {len(made):,} dialogues")


if __name__ == "__main__":
    main()
