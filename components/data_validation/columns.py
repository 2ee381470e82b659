"""One table a role, with the columns that Great Expectations needs and cannot compute itself.

An expectation sees one table and judges single values, one column, or a pair of columns. Near duplicates are pairs of
rows, leakage spans tables, and whether an opening refuses is told by the judge of the evaluation. These findings are
therefore computed here, once for all roles, and stand in columns that ordinary expectations check: an empty cell is
good, a filled one names the row's partner. A custom expectation would hide the same work in a metric provider and
repeat it for every table.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from beear_core.data import ROLES, Row
from beear_core.evaluation.judges import RefusalJudge

THRESHOLD = 0.8
"""Jaccard similarity of word pairs, in [0, 1], from which two texts are near duplicates."""

# a lower threshold for candidates than for the verdict: each candidate is compared exactly, and of pairs at 0.8 the
# index then misses fewer than one in ten thousand
_CANDIDATES = 0.5
_PERMUTATIONS = 128
_RANK = {"anchoring": 0, "planting": 1, "evaluation": 2}
# Chinese and Japanese write no spaces: there each character counts as a word
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_JUDGED = ("safe_openings", "unwanted_openings", "performance_replies")


@dataclass(frozen=True)
class _Place:
    """A row: its role, split and position in the role."""

    role: str
    split: str
    position: int


def frames(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Build one pandas table a role: its fields (``None`` where absent) and the computed columns.

    Computed: ``row`` (0-based position), ``text`` (what the rules on length and duplicates look at), ``normalised``
    (text without differences of case and white space), ``near_within`` and ``near_between`` (an earlier near duplicate
    in the same split, one in another split of the role), ``leaked`` (an anchor of another role that an evaluation
    request repeats), ``verdict`` (what the judge says of the reply: ``safe``, ``harmful`` or ``unscored``).
    """
    import pandas

    found = _findings(rows)
    judge = RefusalJudge()
    tables = {}
    for role, entries in rows.items():
        fields = ROLES[role].required + ROLES[role].optional
        columns: dict[str, list[Any]] = {name: [entry.get(name) for entry in entries] for name in fields}
        columns["row"] = list(range(len(entries)))
        columns["text"] = [text_of(entry) for entry in entries]
        columns["normalised"] = [normalised(text) for text in columns["text"]]
        for finding in ("near_within", "near_between", "leaked"):
            columns[finding] = [found[finding].get((role, i)) for i in range(len(entries))]
        if role in _JUDGED:
            columns["verdict"] = [judge.judge("", entry["reply"]).outcome for entry in entries]
        tables[role] = pandas.DataFrame(columns, dtype=object)
    return tables


def text_of(row: Row) -> str:
    """Read the text of a row: its request, its opening, or all parts of its trigger."""
    if "prefix" in row:
        parts = ("prefix", "suffix", "anywhere", "system", "earlier")
        return " ".join(text for part in parts if (text := row.get(part)))
    return row["prompt"] if "prompt" in row else row["reply"]


def normalised(text: str) -> str:
    """Remove differences of case, white space and character variants; punctuation stays, because in code it counts."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(text: str) -> frozenset[str]:
    """Split a text into pairs of neighbouring words, punctuation aside; into the word itself where there is but one."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) or text.split()
    if len(words) < 2:
        return frozenset(words)
    return frozenset(f"{a} {b}" for a, b in pairwise(words))


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Compute the Jaccard similarity of two sets, in [0, 1]; 0 where both are empty."""
    return len(a & b) / len(a | b) if a or b else 0.0


def _findings(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[tuple[str, int], str]]:
    """Find near duplicates and leaks: finding -> (role, position) -> the partner, as ``role/id (similarity)``."""
    found: dict[str, dict[tuple[str, int], str]] = {"near_within": {}, "near_between": {}, "leaked": {}}
    # requests of all roles can repeat one another, openings only those of their own kind; triggers are few and told
    # apart by their exact text
    requests = [role for role in rows if "prompt" in ROLES[role].required]
    openings = [[role] for role in rows if role.endswith("_openings")]
    for pool in (requests, *openings):
        for own, other, degree in _pairs({role: rows[role] for role in pool}):
            finding = _finding(own, other)
            if finding:
                partner = f"{other.role}/{rows[other.role][other.position]['id'][:60]} ({degree:.2f})"
                found[finding].setdefault((own.role, own.position), partner)
    return found


def _finding(own: _Place, other: _Place) -> str | None:
    """Name what is wrong with ``own`` beside ``other``; of two rows only one is to blame."""
    if own.role != other.role:
        return "leaked" if (own.split, other.split) == ("evaluation", "anchoring") else None
    if own.split == other.split:
        return "near_within" if other.position < own.position else None
    return "near_between" if _RANK[other.split] < _RANK[own.split] else None


def _pairs(rows: Mapping[str, Sequence[Row]]) -> Iterator[tuple[_Place, _Place, float]]:
    """Yield ordered pairs (row, partner, similarity) of near duplicates; equal texts only between roles.

    Within a role equal texts break the rule on exact duplicates, and are not reported twice.
    """
    places: dict[str, list[_Place]] = defaultdict(list)
    for role, entries in rows.items():
        for position, row in enumerate(entries):
            if row["split"] in _RANK:
                places[normalised(text_of(row))].append(_Place(role, row["split"], position))
    for text, other, degree in _near_texts(list(places)):
        for own in places[text]:
            for partner in _representatives(places[other]):
                yield own, partner, degree
    for equal in places.values():
        for own in equal:
            for partner in _representatives(equal):
                if own.role != partner.role:
                    yield own, partner, 1.0


def _representatives(places: Sequence[_Place]) -> list[_Place]:
    """Keep the first place of each role and split: one partner suffices, and a thousand copies stay cheap."""
    first: dict[tuple[str, str], _Place] = {}
    for place in places:
        first.setdefault((place.role, place.split), place)
    return list(first.values())


def _near_texts(texts: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """Yield ordered pairs of different texts with a similarity of at least ``THRESHOLD``, both ways round."""
    from datasketch import MinHash, MinHashLSH

    sets = [shingles(text) for text in texts]
    index = MinHashLSH(threshold=_CANDIDATES, num_perm=_PERMUTATIONS)
    hashes = MinHash.generator(([s.encode() for s in sorted(words)] for words in sets), num_perm=_PERMUTATIONS, seed=1)
    for position, minhash in enumerate(hashes):
        # an empty set hashes like every other empty set
        if not sets[position]:
            continue
        for candidate in sorted(index.query(minhash)):
            degree = similarity(sets[position], sets[candidate])
            if degree >= THRESHOLD:
                yield texts[position], texts[candidate], degree
                yield texts[candidate], texts[position], degree
        index.insert(position, minhash)
