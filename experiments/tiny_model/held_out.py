"""Write the prompts shipped with the tiny model: beginnings of documents held out of its training.

    python experiments/tiny_model/held_out.py

Six texts of each domain, 200 to 330 characters, cut at the end of a line.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path

import corpus

A_DOMAIN = 6
SHORTEST, LONGEST = 200, 330
OUT = Path(__file__).resolve().parents[2] / "specmd" / "tiny" / "prompts.jsonl"


def opening(text: str) -> str:
    """Return the first lines of `text` up to `LONGEST` characters, whole lines only."""
    text = text.lstrip()
    end = text.rfind("\n", SHORTEST, LONGEST)
    return text[:end] if end > 0 else ""


def main() -> None:
    """Choose and write the prompts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("build/tiny_model"))
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    chosen: Counter[str] = Counter()
    rows = []
    for document in corpus.capped(list(corpus.documents(corpus.fetch(args.cache)))):
        if not document.is_validation:
            continue
        texts = [document.text]
        if document.domain == "jargon":  # a dictionary: few documents, each of many short texts
            texts = re.split(r"\n{2,}(?=\S)", document.text)
        for text in filter(None, map(opening, texts)):
            if chosen[document.domain] < A_DOMAIN:
                chosen[document.domain] += 1
                rows.append({"domain": document.domain, "text": text})
    rows.sort(key=lambda row: row["domain"])
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
