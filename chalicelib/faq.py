"""Answers that are fit for anybody: the owner's list of questions, and the entry that answers one.

`faq.toml` has a table for each entry, named by its id, with a version for each language:

    [returns]
    approved = true

    [returns.en]
    question = "How long can I return something?"
    variants = ["What is your return policy?"]
    answer = "You have 30 days."

Only what is approved is ever told to a customer. Entries are found by their rarest words, so that
a thousand of them with five variants each cost few comparisons. Pure, but for `read`.
"""

import csv
import io
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from chalicelib.errors import ConfigurationError
from chalicelib.policy import Language, language_of
from chalicelib.ports import Match, Scorer
from chalicelib.repeats import rarest
from chalicelib.schema import Question
from chalicelib.text import normalise

#: A text and a wording must share one of so many of their rarest words.
_RARE_WORDS = 12
#: The wordings that share the most are compared.
COMPARED_WORDINGS = 10
#: Two entries as close to a question as this: neither is told.
_TOO_CLOSE = 0.02

_Id = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class Version(BaseModel):
    """An entry in one language."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    question: _Line
    variants: tuple[_Line, ...] = ()
    answer: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)
    ]


class Entry(BaseModel):
    """A question that anybody may ask, and its answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    #: The owner has read it, and wants it told.
    approved: bool = False
    en: Version | None = None
    zh: Version | None = None

    def version(self, language: Language) -> Version | None:
        return self.zh if language == "zh" else self.en


@dataclass(frozen=True, kw_only=True)
class Found:
    """The entry that is closest to a text."""

    entry_id: str
    answer: str
    match: Match
    #: It asks the same: it may be told, if it is approved and the rest allows it.
    same: bool


@dataclass(frozen=True)
class _Wording:
    entry_id: str
    language: Language
    text: str


class Faq:
    """The entries, ready to be looked through."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = entries
        self._wordings = list(_wordings(entries))
        self._by_word: defaultdict[str, list[int]] = defaultdict(list)
        self._prepared: dict[tuple[str, int], str] = {}
        for number, wording in enumerate(self._wordings):
            for word in rarest(wording.text, _RARE_WORDS):
                self._by_word[word].append(number)

    def find(self, text: str, scorer: Scorer, *, drafts: bool = False) -> Found | None:
        """The closest entry in the text's language, approved unless `drafts`. RetryableError.

        None if there is nothing to compare with. Of two entries that are equally close, neither
        is the same.
        """
        numbers = self._likely(text, drafts=drafts)
        if not numbers:
            return None
        questions = [self._question(number, scorer) for number in numbers]
        found = scorer.compare(text, questions)
        best: dict[str, Match] = {}
        for number, match in zip(numbers, found.matches, strict=True):
            entry_id = self._wordings[number].entry_id
            best[entry_id] = max(best.get(entry_id, match), match, key=_closeness)
        ranked = sorted(best, key=lambda entry_id: _closeness(best[entry_id]), reverse=True)
        first, match = ranked[0], best[ranked[0]]
        rivals = (best[entry_id] for entry_id in ranked[1:] if not best[entry_id].veto)
        alone = all(match.score - rival.score > _TOO_CLOSE for rival in rivals)
        version = self.entries[first].version(language_of([text]))
        return Found(
            entry_id=first,
            answer=version.answer if version else "",
            match=match,
            same=alone and not match.veto and match.score >= found.answer_threshold,
        )

    def _likely(self, text: str, *, drafts: bool) -> list[int]:
        """The wordings that share the most with a text; a word in many of them says little."""
        language = language_of([text])
        shared: defaultdict[int, float] = defaultdict(float)
        for word in rarest(text, _RARE_WORDS):
            with_word = self._by_word.get(word, ())
            for number in with_word:
                shared[number] += 1 / (1 + len(with_word))
        fitting = (n for n in shared if self._wordings[n].language == language)
        wanted = [n for n in fitting if drafts or self.entries[self._wordings[n].entry_id].approved]
        return sorted(wanted, key=lambda n: (-shared[n], n))[:COMPARED_WORDINGS]

    def _question(self, number: int, scorer: Scorer) -> Question:
        key, text = (scorer.name, number), self._wordings[number].text
        if key not in self._prepared:
            self._prepared[key] = scorer.prepare(text)
        prepared = {scorer.name: self._prepared[key]}
        return Question.model_construct(
            text=text, message_id=f"faq{number}", prepared=prepared, doubts=()
        )


def _closeness(match: Match) -> tuple[bool, float]:
    return match.veto is None, match.score


def _wordings(entries: Mapping[str, Entry]) -> Iterator[_Wording]:
    for entry_id, entry in entries.items():
        for language in get_args(Language):
            if version := entry.version(language):
                for text in (version.question, *version.variants):
                    yield _Wording(entry_id, language, text)


# Reading and writing


def read(path: Path, *, thoroughly: bool = False) -> Faq:
    """The entries of a file. ConfigurationError with a line for each fault, naming the entry.

    What takes comparing all wordings is looked for `thoroughly` only: a worker that starts with a
    thousand entries would spend seconds on what was found before it was deployed.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path.name}: there is no such file at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path.name}: is not valid TOML: {error}") from None
    return Faq(entries_of(tables, path.name, thoroughly=thoroughly))


def entries_of(
    tables: Mapping[str, Any], name: str, *, thoroughly: bool = True
) -> dict[str, Entry]:
    """Validated entries. ConfigurationError with a line for each fault."""
    entries: dict[str, Entry] = {}
    faults: list[str] = []
    for entry_id, table in tables.items():
        try:
            entries[entry_id] = Entry.model_validate(table)
        except ValidationError as error:
            faults += [f"{_place(entry_id, e['loc'])} {_what(e)}" for e in error.errors()]
    if thoroughly and not faults:
        faults += [fault for entry in entries.items() for fault in _faults_of(*entry)]
        faults += _told_twice(entries)
    if faults:
        raise ConfigurationError("\n".join(f"{name}: {fault}" for fault in faults))
    return entries


def _faults_of(entry_id: str, entry: Entry) -> Iterator[str]:
    named = f'entry "{entry_id}"'
    if not _Id.fullmatch(entry_id):
        yield f"{named}: write its id in lower-case letters, digits and hyphens"
    if entry.en is None and entry.zh is None:
        yield f"{named}: has neither en nor zh: write [{entry_id}.en] or [{entry_id}.zh]"
    for wording in _wordings({entry_id: entry}):
        what = f'{named}: {wording.language}: "{wording.text}"'
        if not normalise(wording.text).strip():
            yield f"{what} holds no word to recognise it by"
        elif language_of([wording.text]) != wording.language:
            yield f"{what} is not written in {wording.language}"


def _told_twice(entries: Mapping[str, Entry]) -> Iterator[str]:
    """The same wording in two entries: nobody could tell which one answers it."""
    first: dict[str, str] = {}
    for wording in _wordings(entries):
        other = first.setdefault(normalise(wording.text), wording.entry_id)
        if other != wording.entry_id:
            yield f'entry "{wording.entry_id}": "{wording.text}" stands in entry "{other}" as well'


def _place(entry_id: str, loc: Sequence[Any]) -> str:
    within = ".".join(str(part) for part in loc)
    return f'entry "{entry_id}": {within}' if within else f'entry "{entry_id}":'


_PLAIN = {
    "missing": "is missing",
    "extra_forbidden": "is no setting that we know",
    "string_too_short": "is empty",
    "model_type": "is no table",
}


def _what(error: Any) -> str:
    message = str(error["msg"])
    return _PLAIN.get(error["type"], message[:1].lower() + message[1:])


_COLUMNS = {"id", "language", "question", "variants", "answer", "approved"}
_YES, _NO = {"yes", "true", "1"}, {"", "no", "false", "0"}
_DELIMITERS = ",;\t"


def from_csv(text: str, name: str) -> dict[str, Entry]:
    """Entries of a table: id, question, answer; language, variants (a | between) and approved.

    Rows with one id are one entry in two languages. ConfigurationError with a line for each fault.
    """
    text = text.removeprefix("\ufeff")
    head = text.split("\n", 1)[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=max(_DELIMITERS, key=head.count))
    columns = {(column or "").strip().lower() for column in rows.fieldnames or ()}
    if missing := {"id", "question", "answer"} - columns:
        raise ConfigurationError(f"{name}: the column {min(missing)} is missing in its first line")
    if unknown := columns - _COLUMNS:
        raise ConfigurationError(f'{name}: the column "{min(unknown)}" is none that we know')
    tables: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for row in rows:
        cells = {str(k).strip().lower(): str(v or "").strip() for k, v in row.items() if k}
        faults += [f"{name}: line {rows.line_num}: {fault}" for fault in _add_row(cells, tables)]
    if faults:
        raise ConfigurationError("\n".join(faults))
    return entries_of(tables, name)


def _add_row(cells: Mapping[str, str], tables: dict[str, dict[str, Any]]) -> Iterator[str]:
    """One row as a version of its entry; what is wrong with it."""
    entry_id = cells["id"]
    language = cells.get("language") or language_of([cells["question"]])
    approved = cells.get("approved", "").lower()
    if not entry_id:
        yield "id is empty"
    elif language not in get_args(Language):
        yield f'entry "{entry_id}": language is {language}: write zh or en'
    elif approved not in _YES | _NO:
        yield f'entry "{entry_id}": approved is {approved}: write yes or no'
    elif language in tables.get(entry_id, {}):
        yield f'entry "{entry_id}": has {language} twice'
    else:
        table = tables.setdefault(entry_id, {"approved": True})
        table["approved"] = table["approved"] and approved in _YES  # in both languages
        variants = [v for v in re.split(r"[|\n]", cells.get("variants", "")) if v.strip()]
        table[language] = {
            "question": cells["question"],
            "variants": variants,
            "answer": cells["answer"],
        }


def as_toml(entries: Mapping[str, Entry]) -> str:
    """What `read` reads."""
    return "\n".join(_entry_as_toml(entry_id, entry) for entry_id, entry in entries.items())


def _entry_as_toml(entry_id: str, entry: Entry) -> str:
    lines = [f"[{entry_id}]", f"approved = {str(entry.approved).lower()}"]
    for language in get_args(Language):
        if version := entry.version(language):
            lines += ["", f"[{entry_id}.{language}]", f"question = {_quoted(version.question)}"]
            if version.variants:
                lines += ["variants = [", *(f"    {_quoted(v)}," for v in version.variants), "]"]
            lines.append(f"answer = {_quoted(version.answer)}")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    """A TOML string: of several lines as such, so that it can be read and edited."""
    escaped = "".join(_escaped(c) for c in text.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"""\n{escaped}"""' if "\n" in text else f'"{escaped}"'


def _escaped(character: str) -> str:
    """As it is where it can be seen; half a surrogate pair is nothing that TOML can say."""
    if character == "\n" or character.isprintable():
        return character
    code = 0xFFFD if 0xD800 <= ord(character) <= 0xDFFF else ord(character)
    return f"\\U{code:08x}"
