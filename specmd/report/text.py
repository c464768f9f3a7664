"""Tables as text: one description, rendered for a terminal, a pipe, or Markdown.

A table is columns, sections of rows, and notes below. Numbers stand right, words left; the unit
of a column is in its title. A terminal gets rich's layout and bold type, which adapts to its width;
a pipe gets the same rows aligned by spaces, without escapes and at their natural width, so that
`grep` and `cut` work on them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Style = Literal["", "bold", "dim", "underline"]
Piece = tuple[str, str]
_GAP = "  "
_NARROWEST = 16
_TITLE = 6


@dataclass(frozen=True)
class Column:
    """A column: its title, with the unit, and whether it holds numbers.

    A terminal that is too narrow for all columns leaves spare ones out, the last first.
    """

    title: str
    number: bool = False
    spare: bool = False


@dataclass(frozen=True)
class Cell:
    """A piece of text; bold marks the best of its group, dim what is only there for reference.

    A cell that spills runs over the columns to its right: a reason instead of numbers.
    """

    text: str
    style: Style = ""
    spill: bool = False


@dataclass(frozen=True)
class Section:
    """Rows under a common title; a row may be shorter than the columns."""

    rows: Sequence[Sequence[Cell]]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, sections and the notes below them."""

    columns: Sequence[Column]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default_factory=tuple)
    title: str = ""


def cells(*texts: object, style: Style = "") -> list[Cell]:
    """Make a row of one style."""
    return [Cell("" if text is None else str(text), style) for text in texts]


def plain(table: Table) -> str:
    """Render for a pipe or a file: aligned by spaces, no escapes, at its natural width."""
    lines = ["".join(text for text, _ in line).rstrip() for line in _layout(table, None)]
    return "\n".join(lines) + "\n"


def markdown(table: Table) -> str:
    """Render as GitHub Markdown: one table a section, best values in bold."""
    blocks = [f"**{_escape(table.title)}**"] if table.title else []
    head = [
        _pipes([_escape(column.title) for column in table.columns]),
        _pipes(["---:" if column.number else "---" for column in table.columns]),
    ]
    for section in table.sections:
        if section.title:
            blocks.append(f"**{_escape(section.title)}**")
        body = []
        for row in section.rows:
            texts = [_escape(cell.text) for cell in row]
            marked = [
                f"**{text}**" if cell.style == "bold" and text else text
                for cell, text in zip(row, texts, strict=True)
            ]
            body.append(_pipes(marked + [""] * (len(table.columns) - len(row))))
        blocks.append("\n".join(head + body))
    if table.notes:
        blocks.append("\n".join(f"- {_escape(note)}" for note in table.notes))
    return "\n\n".join(blocks) + "\n"


def terminal(table: Table, width: int | None = None) -> str:
    """Render for the terminal that stdout is: its width, its colours (or none: NO_COLOR)."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, emoji=False, width=width)
    table = _narrowed(table, console.width)
    with console.capture() as captured:
        for line in _layout(table, console.width):
            console.print(Text.assemble(*line), soft_wrap=True)
    return captured.get()


def _narrowed(table: Table, limit: int) -> Table:
    """Leave spare columns out until the table fits, and say so below it."""
    left_out: list[str] = []
    while True:
        widths, gap = _fit(table, limit)
        spare = [index for index, column in enumerate(table.columns) if column.spare]
        if not spare or sum(widths) + len(gap) * (len(widths) - 1) <= limit:
            break
        index = spare[-1]
        left_out.insert(0, table.columns[index].title)

        def without(row: Sequence[Any], index: int = index) -> list[Any]:
            return [*row[:index], *row[index + 1 :]] if len(row) > index else list(row)

        sections = [
            Section([without(row) for row in section.rows], section.title)
            for section in table.sections
        ]
        table = replace(table, columns=without(table.columns), sections=sections)
    if left_out:
        note = f"left out for want of width: {', '.join(left_out)}"
        table = replace(table, notes=[note, *table.notes])
    return table


def _layout(table: Table, limit: int | None) -> Iterator[list[Piece]]:
    """Yield lines as (text, style) pieces, no wider than `limit` if the numbers leave room."""
    widths, gap = _fit(table, limit)
    if table.title:
        yield from _notes([table.title], limit, "bold")
        yield []
    headed = any(column.title for column in table.columns)
    if headed:
        yield from _head(table, widths, gap)
    for number, section in enumerate(table.sections):
        if section.title:
            if number or headed:
                yield []
            yield from _notes([section.title], limit, "italic")
        for row in section.rows:
            yield from _row(row, table, widths, gap)
    if table.notes:
        yield []
        yield from _notes(table.notes, limit, "")


def _head(table: Table, widths: Sequence[int], gap: str) -> Iterator[list[Piece]]:
    """Yield the titles, folded into their columns and standing on the last line."""
    folded = [
        _fold(column.title, width) for column, width in zip(table.columns, widths, strict=True)
    ]
    height = max(map(len, folded))
    stacked = [[""] * (height - len(lines)) + lines for lines in folded]
    for texts in zip(*stacked, strict=True):
        yield from _row([Cell(text, "underline") for text in texts], table, widths, gap)


def _title_width(column: Column) -> int:
    """Words need their title on one line; numbers may fold theirs at spaces."""
    if not column.number:
        return _width(column.title)
    longest = max((_width(word) for word in column.title.split()), default=0)
    return max(longest, min(_width(column.title), _TITLE))


def _fit(table: Table, limit: int | None) -> tuple[list[int], str]:
    """Choose column widths and the gap between them: first the words give way, then the gap."""
    widths = [_title_width(column) for column in table.columns]
    for section in table.sections:
        for row in section.rows:
            for index, cell in enumerate(row):
                if not cell.spill:
                    widths[index] = max(widths[index], _width(cell.text))
    words = [i for i, column in enumerate(table.columns) if not column.number]
    gaps = len(widths) - 1
    for gap in (_GAP, " "):
        while limit and words and sum(widths) + len(gap) * gaps > limit:
            widest = max(words, key=lambda i: widths[i])
            if widths[widest] <= _NARROWEST:
                break
            widths[widest] -= 1
        if not limit or sum(widths) + len(gap) * gaps <= limit:
            return widths, gap
    return widths, " "


def _row(
    row: Sequence[Cell], table: Table, widths: Sequence[int], gap: str
) -> Iterator[list[Piece]]:
    folded = []
    for index, (cell, width) in enumerate(zip(row, widths, strict=False)):
        room = sum(widths[index:]) + len(gap) * (len(widths) - index - 1) if cell.spill else width
        folded.append(_fold(cell.text, room))
    for number in range(max((len(lines) for lines in folded), default=0)):
        pieces: list[Piece] = []
        for index, (cell, lines) in enumerate(zip(row, folded, strict=True)):
            text = lines[number] if number < len(lines) else ""
            padding = " " * (widths[index] - _width(text))
            after = gap if index + 1 < len(row) else ""
            style = cell.style
            if table.columns[index].number and not cell.spill:
                pieces += [(padding, ""), (text, style), (after, "")]
            else:
                pieces += [(text, style), (padding + after, "")]
        yield pieces


def _notes(notes: Sequence[str], limit: int | None, style: str) -> Iterator[list[Piece]]:
    for note in notes:
        for number, text in enumerate(_fold(note, limit - 2 if limit else None)):
            yield [("  " if number else "", ""), (text, style)]


def _fold(text: str, width: int | None) -> list[str]:
    """Break at spaces, else after a comma, else anywhere."""
    lines = []
    while width and _width(text) > width:
        cut = max(text.rfind(" ", 1, width + 1), 0) or text.rfind(",", 0, width) + 1 or width
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*lines, text]


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide


def _pipes(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
