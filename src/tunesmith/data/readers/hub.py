"""A data set of the Hub, by its id "owner/name"."""

from __future__ import annotations

from tunesmith.data.readers import Source
from tunesmith.data.readers.dataset_folder import sources
from tunesmith.errors import DataError


def read(where: str, encoding: str) -> dict[str, Source]:
    """`encoding` is for text files; the Hub's tables have their own."""
    import datasets  # slow to import, and only needed here

    try:
        found = datasets.load_dataset(where)
    except Exception as error:  # the library lets through whatever its network layers raise
        raise DataError(
            f"The data set {where} cannot be fetched from the Hub: {error}".rstrip(".") + ".",
            "Check the id and the network; a local file needs its suffix (.csv, .jsonl, .parquet, …).",
        ) from error
    return sources(found, where)
