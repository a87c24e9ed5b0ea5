"""The words of the embedded corpus: made-up names, trades and things, and how two of them make an entity.

An entity is a pair of words. Train and dev share the words and share no pair, so that an answer has to be
found by reading the paragraph and cannot be remembered, while the words themselves are known.
"""

from __future__ import annotations

import random
from typing import Literal

Split = Literal["train", "dev"]


def words(text: str) -> tuple[str, ...]:
    """The words of a text, split at white space."""
    return tuple(text.split())


GIVEN = words(
    "Alba Bertil Cara Dorin Edda Falk Gerta Hanno Ilsa Jonte Katla Lennart Mirja Nils Oda Pelle Runa Sven Tilda Ulf "
    "Vera Wim Yrsa Arvid Brita Carsten Dagny Eskil Frida Greger"
)
FAMILY = words(
    "Abelsen Brandvik Corvin Dahlmark Ekholt Fenwold Grannis Halvard Isberg Jorvall Kettil Lindrup Morgens Norheim "
    "Orlund Pagnell Quarles Rosvik Stenmark Tarnow Ulvang Vintner Westrum Yarrow Zeller Ashdown Birkett Cantrell "
    "Dunmore Everly"
)
QUARTER = words("Upper Lower Old New North South East West Port Fort Mount Saint High Little Great")
TOWN = words(
    "Marlow Tessel Brindle Carrow Dunmere Elvert Farnham Galdor Hexley Irvane Jarrow Kelso Lorne Medway Nestor Ostley "
    "Penrose Quill Ravell Selby Thorne Umber Velden Warrick Yelland Alder Bexley Corfe Denby Elmet"
)
COLOUR = words("Black White Red Green Blue Grey Brown Silver Golden Amber Clear Dark Pale Bright Cold")
RIVER = words(
    "Ondra Tavel Isken Varda Luden Morava Salt Neris Orba Pinna Resk Sorel Tamsel Ulda Venn Wessa Yare Zala Arno Drava"
)
MATERIAL = words("copper iron glass paper silk steam water wooden brass steel leather stone rubber cotton silver")
DEVICE = words(
    "loom kite clock lamp pump press plough engine compass organ lens wheel bell whistle kettle balance ladder lock "
    "saw oven"
)
TRADE = words(
    "baker teacher painter doctor judge sailor miller tailor printer gardener singer lawyer farmer mason poet hunter "
    "dentist butcher potter barber"
)
GOODS = words(
    "cheese honey wine salt wool apples pears carpets pottery knives paper bread tea roses horses soap beer silk "
    "violins candles"
)
BUILDING = words("bridge theatre library harbour school hospital museum market tower chapel")
YEARS = tuple(str(year) for year in range(1780, 1900))
LENGTHS = tuple(str(miles) for miles in range(20, 100))

#: Kinds of entities that are pairs of words, by the name of their slot.
PAIRS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "person": (GIVEN, FAMILY),
    "town": (QUARTER, TOWN),
    "river": (COLOUR, RIVER),
    "device": (MATERIAL, DEVICE),
}
#: Kinds of entities that are one word, common to both splits.
SINGLES: dict[str, tuple[str, ...]] = {
    "trade": TRADE,
    "goods": GOODS,
    "building": BUILDING,
    "year": YEARS,
    "miles": LENGTHS,
}
#: One pair in so many belongs to dev.
DEV_SHARE = 7


class Names:
    """Draws entities of one split, each at most once until `forget`."""

    def __init__(self, split: Split, rng: random.Random) -> None:
        self._rng = rng
        self._pools = {kind: _pairs(kind, split) for kind in PAIRS} | {kind: list(SINGLES[kind]) for kind in SINGLES}
        self._used: set[str] = set()

    def draw(self, kind: str) -> str:
        """An entity of a kind that was not drawn since the last `forget`."""
        while (name := self._rng.choice(self._pools[kind])) in self._used:
            pass
        self._used.add(name)
        return name

    def forget(self) -> None:
        """Allow all entities again."""
        self._used.clear()


def _pairs(kind: str, split: Split) -> list[str]:
    first, second = PAIRS[kind]
    pairs = [f"{a} {b}" for a in first for b in second]
    # The division belongs to the corpus, not to a seed: dev stays unseen whatever seed train was made with.
    random.Random(kind).shuffle(pairs)
    cut = len(pairs) // DEV_SHARE
    return pairs[:cut] if split == "dev" else pairs[cut:]


def vocabulary() -> set[str]:
    """Every word that an entity can be made of."""
    return {word for first, second in PAIRS.values() for word in first + second} | {
        w for s in SINGLES.values() for w in s
    }
