"""Columns of a Parquet file as lists, after what its footer says of its size: kilobytes of it can hold gigabytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from splora.errors import InputError, cut
from splora.reading import CELL, COLUMNS, LINES, ROW, Budget, limit, more_allowed


def columns_of(path: Path) -> dict[str, list[Any]]:
    """The values of each column, by name: texts, numbers, None where nothing is.

    A text that the file holds once for many rows is one object here, so that its rows can be counted without their
    memory; they count as often as they stand.

    Raises:
        InputError: it cannot be read as Parquet, has no rows, two columns of one name, or is beyond the limits.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        # Not `read_table`: it would take parts of the path, like `fold=1`, for columns.
        with ParquetFile(path) as file:
            budget = Budget(str(path))
            names = _checked(file.metadata, file.schema_arrow, budget)
            texts = [name for name, kind in zip(names, file.schema_arrow.types, strict=True) if _is_text(kind)]
        columns: dict[str, list[Any]] = {name: [] for name in names}
        with ParquetFile(path, read_dictionary=texts) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                for place, name in enumerate(names):
                    for chunk in table.column(place).chunks:
                        columns[name] += _values(chunk, budget)
    except InputError:
        raise
    except (ArrowException, OSError, ValueError, OverflowError, TypeError, KeyError, MemoryError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path}: cannot be read as Parquet ({reason[0].rstrip('.')}).") from None
    if not any(columns.values()):
        raise InputError(f"{path}: has no rows.")
    return columns


def classes_of(path: Path) -> dict[str, list[str]]:
    """Names that a column's numbers stand for, by column, as `datasets` leaves them in a file's metadata.

    Only of a file that `columns_of` has read.
    """
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        content = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(content).get("info", {}).get("features", {})
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (ValueError, AttributeError, RecursionError):
        return {}


def _checked(footer: Any, schema: Any, budget: Budget) -> list[str]:
    """Names of the columns of a file that is not too large to be read."""
    path = budget.where
    if footer.num_columns > limit(COLUMNS):
        raise InputError(
            f"{path}: has {footer.num_columns:,} columns; at most {limit(COLUMNS):,} are read; {more_allowed()}."
        )
    if footer.num_rows > limit(LINES):
        raise InputError(f"{path}: has {footer.num_rows:,} rows; at most {limit(LINES):,} are read; {more_allowed()}.")
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        parts = [group.column(place) for place in range(group.num_columns)]
        values = sum(max(part.num_values, group.num_rows) for part in parts)
        size = sum(part.total_uncompressed_size for part in parts)
        budget.take(ROW * group.num_rows + CELL * values + size, f"its {footer.num_rows:,} rows")
    names = list(schema.names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: has two columns {cut(twice)}.")
    return names


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _values(chunk: Any, budget: Budget) -> list[Any]:
    from pyarrow import DictionaryArray

    if not isinstance(chunk, DictionaryArray):
        return list(chunk.to_pylist())
    words = chunk.dictionary.to_pylist()
    values = [None if place is None else words[place] for place in chunk.indices.to_pylist()]
    # What comes after this will take each text for itself.
    budget.take(sum(len(value) for value in values if isinstance(value, str)))
    return values
