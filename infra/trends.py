"""What `askonce repeats trending` and `askonce faq` show and write."""

import json
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from chalicelib import faq
from chalicelib.crowd import Crowd, Trend, word_pairs
from chalicelib.errors import ConfigurationError
from chalicelib.faq import Entry, Faq, Version
from chalicelib.pipeline import Pipeline
from chalicelib.policy import language_of
from chalicelib.settings import Document

_ANSWER_CHARACTERS = 10_000
_SHOWN_CHARACTERS = 80


def trends(pipeline: Pipeline, days: int) -> list[Trend]:
    """What many asked within so many days, most customers first."""
    crowd = Crowd(pipeline.store, pipeline.deployment, pipeline.clock, pipeline.report)
    with click.progressbar(crowd.trending(days), label="Reading topics", file=sys.stderr) as found:
        return sorted(found, key=lambda trend: (-trend.customers, trend.topic.id))


def trending(pipeline: Pipeline, days: int, *, as_json: bool) -> Iterator[str]:
    """A line for each question that many asked; or one of JSON, with its hours and days."""
    found = trends(pipeline, days)
    if as_json:
        yield from (json.dumps(_as_json(t, pipeline), ensure_ascii=False) for t in found)
        return
    if not found:
        yield f"no question was asked by several customers within {days} days"
        return
    yield "customers  this hour  trend   answered  FAQ               question"
    now = pipeline.clock()
    for t in found:
        answered = "yes" if t.answer else "no"
        covered = covering(pipeline.deployment.faq, t, pipeline) or "-"
        yield (
            f"{t.customers:>9}  {t.counts.within_an_hour(now):>9}  {t.counts.trend(now):<6}  "
            f"{answered:<8}  {covered:<16}  {_short(t.topic.sample)}"
        )


def _as_json(trend: Trend, pipeline: Pipeline) -> dict[str, Any]:
    now, counts = pipeline.clock(), trend.counts
    surged_at = trend.topic.surged_at
    return {
        "topic": trend.topic.id,
        "customers": trend.customers,
        "this_hour": counts.within_an_hour(now),
        "trend": counts.trend(now),
        "by_hour": counts.by_hour(now),
        "by_day": counts.by_day(now),
        "surged_at": surged_at.isoformat() if surged_at else None,
        "answered": trend.answer is not None,
        "faq": covering(pipeline.deployment.faq, trend, pipeline),
        "sample": trend.topic.sample,
    }


def covering(entries: Faq, trend: Trend, pipeline: Pipeline) -> str | None:
    """The entry that answers it, as the owner wants to read it; None if there is none."""
    found = entries.find(trend.topic.sample, pipeline.deployment.local_scorer, drafts=True)
    if found is None or not found.same:
        return None
    approved = entries.entries[found.entry_id].approved
    return found.entry_id if approved else f"{found.entry_id} (draft)"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def candidates(pipeline: Pipeline, days: int, customers: int) -> Iterator[str]:
    """What many asked and agents answered, as entries to paste into the FAQ: none approved."""
    asked = [t for t in trends(pipeline, days) if t.customers >= customers and _has_words(t)]
    fresh = [t for t in asked if not covering(pipeline.deployment.faq, t, pipeline)]
    answered = [t for t in fresh if t.answer and t.answer.text.strip()]
    if answered:
        yield (
            "# Each answer was written to one customer: make it fit for anybody, leave out what\n"
            "# is theirs, and set approved = true. Until then it is told to nobody.\n"
        )
    for t in answered:
        yield f"# asked by {t.customers} customers within {days} days"
        yield faq.as_toml({t.topic.id: _draft(t)})
    for t in fresh:
        if t not in answered:
            yield f"# asked by {t.customers}, and no answer of an agent found: {t.topic.sample}"
    if not fresh:
        yield f"# nothing that {customers} customers asked within {days} days is left without entry"


def _has_words(trend: Trend) -> bool:
    """Not so where whoever asked it was erased."""
    return bool(word_pairs(trend.topic.sample))


def _draft(trend: Trend) -> Entry:
    answer = trend.answer.text if trend.answer else ""
    version = Version(question=trend.topic.sample, answer=answer.strip()[:_ANSWER_CHARACTERS])
    chinese = language_of([trend.topic.sample]) == "zh"
    return Entry(zh=version) if chinese else Entry(en=version)


# The file


def file_of(document: Document, config: Path) -> Path:
    """Where the FAQ lies. ConfigurationError where none is configured."""
    if document.faq is None:
        raise ConfigurationError(
            f'{config.name}: no FAQ is configured: write [faq] and file = "faq.toml" into it'
        )
    return Path(document.faq.file)


def checked(path: Path) -> Iterator[str]:
    """What is in the file, an entry a line. ConfigurationError with a line for each fault."""
    entries = faq.read(path, thoroughly=True).entries
    for entry_id, entry in entries.items():
        versions = {"en": entry.en, "zh": entry.zh}
        wordings = ", ".join(
            f"{language}: {1 + len(version.variants)} wordings"
            for language, version in versions.items()
            if version
        )
        state = "approved" if entry.approved else "draft, told to nobody"
        yield f"{entry_id:<24}  {wordings:<34}  {state}"
    approved = sum(entry.approved for entry in entries.values())
    yield f"{path.name}: {len(entries)} entries, {approved} approved, no faults"


def imported(table: Path, path: Path, *, dry_run: bool) -> Iterator[str]:
    """The table's entries, put behind those of the file; all of them or none.

    ConfigurationError with a line for each fault, also for an entry that is there already.
    """
    new = faq.from_csv(_text(table), table.name)
    before = _text(path) if path.exists() else ""
    there = faq.read(path).entries if before else {}
    if twice := sorted(new.keys() & there.keys()):
        raise ConfigurationError(
            "\n".join(f'{path.name}: entry "{entry_id}" is there already' for entry_id in twice)
        )
    after = f"{before.rstrip()}\n\n{faq.as_toml(new)}".lstrip()
    faq.entries_of(tomllib.loads(after), path.name)
    if not dry_run:
        path.write_text(after, encoding="utf-8")
    approved = sum(entry.approved for entry in new.values())
    would = "would be " if dry_run else ""
    yield f"{path.name}: {len(new)} entries {would}added, {approved} of them approved"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{path.name}: is not UTF-8: save it as CSV UTF-8 in your spreadsheet"
        ) from None


def echo(lines: Iterable[str]) -> None:
    """Print them."""
    for line in lines:
        click.echo(line)
