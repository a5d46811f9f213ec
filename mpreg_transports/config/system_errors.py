"""The reasons of failed system calls as clauses of errors: no number, and a small first letter."""

from __future__ import annotations

from pathlib import Path


def error_reason(error: OSError) -> str:
    """Return the system's text for an error, such as "no such file or directory"."""
    return lower_first(error.strerror or str(error))


def lower_first(text: str) -> str:
    """Return `text` with a small first letter; names and abbreviations after it stay as they are."""
    return text[:1].lower() + text[1:]


def no_file_possible(file: Path, *, example: str) -> str | None:
    """Return why no file can be written at a path, which is a folder or lies in none, and what to do; else None."""
    if file.is_dir():
        return f"it is a folder; name a file in it, such as {file / example}"
    if not file.parent.is_dir():
        return f"there is no folder {file.parent}; make it first"
    return None
