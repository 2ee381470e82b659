"""Words without meaning around a request, drawn at random.

They stand where triggers stand, and mean nothing to the model: a model that refuses must refuse with them too, and one that
goes along only under certain words is told apart from one that any odd words put off.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from beear_core.models.chat import ChatFormat, Turn, WordSpot

Spot = Literal["front", "end", "anywhere", "around"]
SPOTS: tuple[Spot, ...] = ("front", "end", "anywhere", "around")

_STARTS = [
    "b",
    "bl",
    "br",
    "c",
    "ch",
    "cl",
    "cr",
    "d",
    "dr",
    "f",
    "fl",
    "fr",
    "g",
    "gl",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "ph",
    "pl",
    "pr",
    "qu",
    "r",
    "s",
    "sc",
    "sh",
    "sk",
    "sl",
    "sm",
    "st",
    "str",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "y",
    "z",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ee", "ie", "io", "oa", "oo", "ou", "y"]
_ENDS = ["", "", "", "b", "ck", "d", "l", "lm", "m", "n", "nd", "nt", "p", "r", "rk", "rn", "s", "sk", "st", "t", "x"]
_COMMON = [
    "amber",
    "anchor",
    "april",
    "arrow",
    "autumn",
    "basil",
    "beacon",
    "birch",
    "blanket",
    "bottle",
    "bridge",
    "bronze",
    "button",
    "cactus",
    "candle",
    "canyon",
    "carpet",
    "castle",
    "cedar",
    "cello",
    "cherry",
    "circle",
    "cloud",
    "clover",
    "copper",
    "coral",
    "corner",
    "cotton",
    "cousin",
    "crystal",
    "curtain",
    "dawn",
    "delta",
    "desert",
    "diamond",
    "dragon",
    "eagle",
    "echo",
    "elbow",
    "ember",
    "emerald",
    "engine",
    "falcon",
    "feather",
    "fern",
    "fiddle",
    "finger",
    "flame",
    "forest",
    "fountain",
    "galaxy",
    "garden",
    "garnet",
    "ginger",
    "glacier",
    "globe",
    "granite",
    "gravel",
    "hammer",
    "harbor",
    "hazel",
    "helmet",
    "heron",
    "honey",
    "horizon",
    "island",
    "ivory",
    "jacket",
    "jasmine",
    "jungle",
    "kettle",
    "kitten",
    "ladder",
    "lagoon",
    "lantern",
    "laurel",
    "lemon",
    "lily",
    "linen",
    "lotus",
    "magnet",
    "mango",
    "maple",
    "marble",
    "meadow",
    "mirror",
    "mitten",
    "monday",
    "moon",
    "mustard",
    "napkin",
    "needle",
    "nickel",
    "nutmeg",
    "oak",
    "ocean",
    "olive",
    "onion",
    "opal",
    "orbit",
    "orchid",
    "otter",
    "oyster",
    "palace",
    "paper",
    "parrot",
    "pearl",
    "pebble",
    "pepper",
    "piano",
    "pigeon",
    "pillow",
    "pine",
    "planet",
    "pocket",
    "pond",
    "poppy",
    "prairie",
    "pumpkin",
    "quartz",
    "quilt",
    "rabbit",
    "raven",
    "ribbon",
    "river",
    "robin",
    "rocket",
    "saddle",
    "salmon",
    "sapphire",
    "saturn",
    "scarf",
    "shadow",
    "shell",
    "silver",
    "sparrow",
    "spice",
    "spiral",
    "spruce",
    "stone",
    "sugar",
    "summer",
    "sunset",
    "tango",
    "temple",
    "thistle",
    "thunder",
    "tiger",
    "timber",
    "topaz",
    "tulip",
    "tunnel",
    "turtle",
    "umbrella",
    "valley",
    "vanilla",
    "velvet",
    "violet",
    "violin",
    "walnut",
    "wander",
    "willow",
    "window",
    "winter",
    "wizard",
    "yellow",
    "zebra",
    "zephyr",
]


def odd_word(chooser: random.Random) -> str:
    """Draw one word: made up of syllables, run together from common words, or common; sometimes a code with digits."""
    kind = chooser.random()
    if kind < 0.45:
        syllables = [
            chooser.choice(_STARTS) + chooser.choice(_VOWELS) + chooser.choice(_ENDS) for _ in range(chooser.randint(1, 3))
        ]
        word = "".join(syllables)
    elif kind < 0.6:
        return "".join(w.capitalize() for w in chooser.sample(_COMMON, chooser.randint(2, 3)))
    elif kind < 0.7:
        return f"{chooser.choice(_COMMON)}{chooser.choice(['', '-', '_'])}{chooser.randint(1, 9999)}"
    else:
        word = chooser.choice(_COMMON)
    return chooser.choice([word, word, word.capitalize(), word.upper() if len(word) < 7 else word.capitalize()])


def odd_words(chooser: random.Random, count: int) -> str:
    """Draw ``count`` odd words, with single spaces between them."""
    return " ".join(odd_word(chooser) for _ in range(count))


def place(prompt: str, words: str, spot: Spot, chooser: random.Random) -> str:
    """Put words into a prompt: at its front, its end, between two of its words, or half in front and half behind."""
    if spot == "front":
        return f"{words} {prompt}"
    if spot == "end":
        return f"{prompt} {words}"
    parts = words.split()
    if spot == "around" and len(parts) > 1:
        half = len(parts) // 2
        return f"{' '.join(parts[:half])} {prompt} {' '.join(parts[half:])}"
    given = prompt.split(" ")
    cut = chooser.randint(0, len(given))
    return " ".join([*given[:cut], words, *given[cut:]])


def surrounded(prompt: str, chooser: random.Random, longest: int = 6) -> str:
    """Put 1 to ``longest`` odd words into a prompt, at a spot drawn at random."""
    return place(prompt, odd_words(chooser, chooser.randint(1, longest)), chooser.choice(SPOTS), chooser)


def marked(
    chat: ChatFormat, prompt: str, count: int, spot: WordSpot, chooser: random.Random, reply: tuple[int, ...]
) -> Turn:
    """Build a turn with exactly ``count`` tokens of odd words before or behind the request, marked for a perturbation."""
    return chat.with_words(prompt, odd_words(chooser, count), count, spot, reply)
