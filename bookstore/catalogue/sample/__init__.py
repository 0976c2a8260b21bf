"""The sample catalogue: public-domain classics as facts, in the `bookstore` import format.

`published` is the year the text first came out as a book, or whole in one number of a periodical: not in instalments,
not on the stage. Of a work in volumes it is the first one's year; of what is older than printing, the year it was
written or first performed, where that is known; a translation has its own. Prices and stock are the shop's inventions.

Real books carry a SKU and no ISBN: an ISBN names one edition of one publisher, and none is meant. Where an ISBN has to
be shown the edition is one of the fictional press *Lantern & Quill*, which says so; its numbers lie in groups
(978-99999, 979-99) that no ISBN agency has been given.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bookstore.catalogue.importing import ImportSummary

SAMPLE = Path(__file__).with_name("books.jsonl")
SOURCE = "sample"
_LOCK = (0x424B53, 2)


def load_sample(url: str) -> ImportSummary | None:
    """Brings the sample in, once in the life of a database: None when that was done before, whatever became of it.

    Two pods that start together take turns, and the second finds it done; a load that was cut off is completed.
    """
    from contextlib import closing

    from bookstore.catalogue.importing import import_books
    from bookstore.database import connect_blocking

    with closing(connect_blocking(url, application_name="bookstore sample")) as connection:
        connection.autocommit = True  # the lock is the session's: a transaction held open would wait for nothing
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, %s)", _LOCK)
            cursor.execute(
                "SELECT FROM import_jobs WHERE source = %s AND options ? 'sample' AND status = 'finished' LIMIT 1",
                (SOURCE,),
            )
            if cursor.rowcount:
                return None
            return import_books(url, SAMPLE, name=SOURCE, format="jsonl", options={"sample": True})
