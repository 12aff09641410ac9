"""How often common words and characters are used: chalicelib/rarity.json, for `repeats.rarest`.

The frequencies are wordfreq's
(https://github.com/rspeer/wordfreq, data CC BY-SA 4.0; see NOTICE). Rarer words than these weigh
one each, so they need no entry.
"""

import json
import math
from collections import Counter
from pathlib import Path

TABLE = Path(__file__).resolve().parents[2] / "chalicelib" / "rarity.json"
#: A word this rare weighs 0.97, next to nothing less than one.
RAREST = 1e-5


def english() -> dict[str, float]:
    """Shares of words."""
    from wordfreq import top_n_list, word_frequency

    shares = {w: word_frequency(w, "en") for w in top_n_list("en", 20_000, wordlist="large")}
    return {w: p for w, p in shares.items() if p >= RAREST and w.isascii()}


def chinese() -> dict[str, float]:
    """Shares of characters, counted over words."""
    from wordfreq import top_n_list, word_frequency

    counts: Counter[str] = Counter()
    for word in top_n_list("zh", 200_000, wordlist="large"):
        share = word_frequency(word, "zh")
        counts.update({c: share for c in word if "\u3400" <= c <= "\u9fff"})
    total = sum(counts.values())
    return {c: n / total for c, n in counts.items() if n / total >= RAREST}


def main() -> None:
    """Write {token: hundredths of the decimal logarithm of its uses in a thousand million}."""
    shares = english() | chinese()
    table = {w: round(100 * math.log10(p * 1e9)) for w, p in sorted(shares.items())}
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
    TABLE.write_text(text + "\n", encoding="utf-8")
