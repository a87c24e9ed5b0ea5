"""Which columns of a table hold a GLUE task's texts and labels: by known names, or as the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from splora.errors import InputError, cut, named, nearest
from splora.tasks.glue_tasks import GlueTask

#: Names of the text columns of pairs, in GLUE's tables, on the hub and elsewhere.
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
SINGLES = (("sentence",), ("text",))
LABELS = ("label", "labels", "gold_label")


def find_columns(
    header: Sequence[str],
    where: str,
    task: GlueTask,
    columns: Mapping[str, str] | None = None,
    headless: bool = False,
    labelled: bool = True,
) -> list[int] | None:
    """Places of the texts' columns and, last, of the label's; None for a file without a header that needs none.

    Args:
        header: names of the table's columns, compared without regard to case.
        where: the table and, if it has one, the header's line, for messages.
        columns: the user's own names by any usual one, e.g. ``{"sentence1": "my_premise", "label": "gold"}``;
            what it does not name is recognized as without it.
        headless: whether a file of this format may lack a header.
        labelled: whether the label's column is asked for, too.

    Raises:
        InputError: a column is missing, or `columns` names something that the task or the table does not have.
    """
    names = [name.strip() for name in header]
    own = _overrides(columns or {}, task)
    label = next((name for name in (task.label, *LABELS) if _place(name, names) is not None), task.label)
    choices = [(*pair, label) if labelled else pair for pair in _texts(task)]
    wanted = [[own.get(role, name) for role, name in enumerate(choice)] for choice in choices]
    # The first of those of which most are there: the one that its author meant.
    best = max(wanted, key=lambda choice: sum(_place(name, names) is not None for name in choice))
    places = [_place(name, names) for name in best]
    if headless and task.no_header and not own and all(place is None for place in places):
        return None
    found = [place for place in places if place is not None]
    if len(found) < len(places):
        missing = best[places.index(None)]
        raise InputError(
            f"{where}: has no column {missing!r}; its columns are {named(map(cut, names))}"
            f"{nearest(missing, names) or '.'}"
        )
    if len(set(found)) < len(found):
        raise InputError(f"{where}: the columns {', '.join(map(repr, best))} are not all different ones.")
    return found


def check_overrides(columns: Mapping[str, str] | None, task: GlueTask) -> None:
    """See to it that a user's `columns` name columns of the task, before any table is read.

    Raises:
        InputError: they do not, or name one twice.
    """
    _overrides(columns or {}, task)


def _texts(task: GlueTask) -> list[tuple[str, ...]]:
    """Usual names of the task's text columns, its own first."""
    return list(dict.fromkeys(names for names in (task.sentences, task.hub_sentences, *_known(task)) if names))


def _known(task: GlueTask) -> Sequence[tuple[str, ...]]:
    return PAIRS if len(task.sentences) > 1 else SINGLES


def _overrides(columns: Mapping[str, str], task: GlueTask) -> dict[int, str]:
    """The user's names by role: 0 and 1 for the texts, the number of texts for the label."""
    # Later entries do not replace earlier ones: QNLI's own `sentence` is its second text.
    roles: dict[str, int] = {}
    for names in _texts(task):
        for role, name in enumerate(names):
            roles.setdefault(name.casefold(), role)
    roles.setdefault("sentence1", 0)
    for name in (task.label, *LABELS, "score"):
        roles.setdefault(name.casefold(), len(task.sentences))
    own: dict[int, str] = {}
    for key, name in columns.items():
        if key.casefold() not in roles:
            allowed = (*_known(task)[0], "label")
            raise InputError(
                f"columns names {key!r}; allowed are {', '.join(allowed)} and the usual names of these columns"
                f"{nearest(key, roles) or '.'}"
            )
        role = roles[key.casefold()]
        if role in own:
            raise InputError(f"columns names {name!r} and {own[role]!r} for the same column.")
        own[role] = name
    return own


def _place(name: str, names: Sequence[str]) -> int | None:
    """Where a column of this name stands: the first that is written so, else the first but for its case."""
    if name in names:
        return names.index(name)
    folded = [other.casefold() for other in names]
    return folded.index(name.casefold()) if name.casefold() in folded else None
