"""Every question the catalogue asks PostgreSQL, each with a name and a sentence. Nothing here commits.

Questions are put together from the constants of this package only; what comes from a request is always a parameter.
"""

# ruff: noqa: S608

from __future__ import annotations

from bookstore.catalogue.roles import IS_AUTHOR

# Everything a book is shown with, in one question however many books: `b` is `books`.
SHOWN_BOOK = """
    b.id, b.work_id, b.isbn13, b.sku, b.title, b.subtitle, b.series_number, b.format, b.availability, b.language,
    b.published_year, b.published_on, b.rating, b.rating_count, b.rating_source, b.version, b.archived_at, b.updated_at,
    (SELECT s.title FROM series s WHERE s.id = b.series_id) AS series,
    (SELECT p.name FROM publishers p WHERE p.id = b.publisher_id) AS publisher,
    (SELECT json_agg(json_build_array(c.id, c.name, bc.role) ORDER BY bc.position)
     FROM book_contributors bc JOIN contributors c ON c.id = bc.contributor_id WHERE bc.book_id = b.id) AS contributors,
    (SELECT json_agg(json_build_array(p.amount, p.currency) ORDER BY p.currency)
     FROM prices p WHERE p.book_id = b.id) AS prices,
    (SELECT json_agg(json_build_array(s.scheme, s.code, s.heading) ORDER BY s.scheme DESC, s.code)
     FROM book_subjects bs JOIN subjects s ON s.id = bs.subject_id WHERE bs.book_id = b.id) AS subjects,
    (SELECT s.on_hand - s.allocated FROM stock s WHERE s.book_id = b.id) AS available
"""

# One book by its id, archived or not: the caller tells 410 from 404.
BOOK_BY_ID = f"SELECT {SHOWN_BOOK} FROM books b WHERE b.id = %(id)s"

# One book of the shop by its ISBN-13.
BOOK_BY_ISBN = f"SELECT {SHOWN_BOOK} FROM books b WHERE b.isbn13 = %(isbn)s AND b.archived_at IS NULL"

# The books of the shop among up to a hundred ISBN-13s.
BOOKS_BY_ISBNS = f"SELECT {SHOWN_BOOK} FROM books b WHERE b.isbn13 = ANY(%(isbns)s) AND b.archived_at IS NULL"

# A work, and who made it: the authors of any of its editions, first mentioned first.
WORK_BY_ID = f"""
    SELECT w.id, w.title, (
        SELECT json_agg(json_build_array(id, name, role) ORDER BY place, id) FROM (
            SELECT c.id, c.name, bc.role, min(bc.position) AS place
            FROM books b JOIN book_contributors bc ON bc.book_id = b.id JOIN contributors c ON c.id = bc.contributor_id
            WHERE b.work_id = w.id AND b.archived_at IS NULL AND {IS_AUTHOR}
            GROUP BY c.id, c.name, bc.role
        ) AS makers
    ) AS contributors
    FROM works w WHERE w.id = %(id)s
"""

# The editions of a work that the shop sells, the newest first.
EDITIONS_OF_WORK = f"""
    SELECT {SHOWN_BOOK} FROM books b WHERE b.work_id = %(id)s AND b.archived_at IS NULL
    ORDER BY b.published_key DESC, b.id DESC LIMIT 100
"""

# How many books of the shop somebody has a part in: `c` is `contributors`.
_BOOKS_OF_CONTRIBUTOR = """(
    SELECT count(DISTINCT b.id) FROM book_contributors bc JOIN books b ON b.id = bc.book_id
    WHERE bc.contributor_id = c.id AND b.archived_at IS NULL
)"""

# One contributor, author or not.
AUTHOR_BY_ID = f"SELECT c.id, c.name, {_BOOKS_OF_CONTRIBUTOR} AS books FROM contributors c WHERE c.id = %(id)s"

# The authors of the books in the shop, by name.
AUTHORS = f"""
    SELECT c.id, c.sort_key AS key FROM contributors c WHERE EXISTS (
        SELECT FROM book_contributors bc JOIN books b ON b.id = bc.book_id
        WHERE bc.contributor_id = c.id AND b.archived_at IS NULL AND {IS_AUTHOR})
"""

# A page of authors as they are shown.
SHOWN_AUTHORS = f"""
    SELECT page.id, page.key, c.name, {_BOOKS_OF_CONTRIBUTOR} AS books
    FROM ({{page}}) AS page JOIN contributors c ON c.id = page.id
"""

# The books of the shop somebody has a part in, in whatever role.
BOOKS_OF_AUTHOR = """
    SELECT b.id, b.sort_title AS key FROM books b
    WHERE b.archived_at IS NULL
      AND b.id IN (SELECT bc.book_id FROM book_contributors bc WHERE bc.contributor_id = %(id)s)
"""

# The subjects of the books in the shop, by heading.
SUBJECTS = """
    SELECT s.id, s.heading_key AS key FROM subjects s WHERE EXISTS (
        SELECT FROM book_subjects bs JOIN books b ON b.id = bs.book_id
        WHERE bs.subject_id = s.id AND b.archived_at IS NULL)
"""

# A page of subjects as they are shown, with how many books each has.
SHOWN_SUBJECTS = """
    SELECT page.id, page.key, s.scheme, s.code, s.heading, (
        SELECT count(*) FROM book_subjects bs JOIN books b ON b.id = bs.book_id
        WHERE bs.subject_id = s.id AND b.archived_at IS NULL) AS books
    FROM ({page}) AS page JOIN subjects s ON s.id = page.id
"""

# A page of books as they are shown: found first, looked at afterwards, so that only the page's books cost anything.
SHOWN_BOOKS = f"SELECT page.key, {SHOWN_BOOK} FROM ({{page}}) AS page JOIN books b ON b.id = page.id"

# What narrows a list of books, by the name of its parameter.
FILTERS = {
    "author_id": "b.id IN (SELECT bc.book_id FROM book_contributors bc"
    f" WHERE bc.contributor_id = %(author_id)s AND {IS_AUTHOR})",
    "author": "b.id IN (SELECT bc.book_id FROM book_contributors bc JOIN contributors c ON c.id = bc.contributor_id"
    f" WHERE c.words @@ plainto_tsquery('pg_catalog.simple', %(author)s) AND {IS_AUTHOR})",
    # Thema codes say where they belong: FBA is below FB is below F.
    "thema": "b.id IN (SELECT bs.book_id FROM book_subjects bs JOIN subjects s ON s.id = bs.subject_id"
    " WHERE s.scheme = 'thema' AND starts_with(s.code, %(thema)s))",
    "subject_code": "b.id IN (SELECT bs.book_id FROM book_subjects bs JOIN subjects s ON s.id = bs.subject_id"
    " WHERE s.scheme = %(subject_scheme)s AND s.code = %(subject_code)s)",
    "subject": "b.id IN (SELECT bs.book_id FROM book_subjects bs JOIN subjects s ON s.id = bs.subject_id"
    " WHERE s.heading_key = %(subject)s OR s.code = %(subject_as_code)s)",
    "language": "b.language = %(language)s",
    "format": "b.format = %(format)s",
    "currency": "p.currency = %(currency)s",
    "price_min": "p.amount >= %(price_min)s",
    "price_max": "p.amount <= %(price_max)s",
    # A scalar, so that it is looked up for the page's books only: an EXISTS gets hashed for the whole shop first.
    "in_stock": "coalesce((SELECT s.on_hand > s.allocated FROM stock s WHERE s.book_id = b.id), false) = %(in_stock)s",
    # On the key, so that its index serves: year 1999 is 1999 00 00 up to 1999 12 31, an unknown year below them all.
    "published_from": "b.published_key >= %(published_from)s * 10000",
    "published_to": "b.published_key BETWEEN -2147483647 AND %(published_to)s * 10000 + 9999",
}

# What a list of books is ordered by: the columns of one index each, the key and the book's id. (`p.book_id` is `b.id`,
# but only the one beside `p.amount` makes a row comparison that PostgreSQL finds in the index: 4.6 ms against 0.1.)
SORT_KEYS = {
    "title": ("b.sort_title", "b.id"),
    "-published": ("b.published_key", "b.id"),
    "price": ("p.amount", "p.book_id"),
    "-price": ("p.amount", "p.book_id"),
    "-rating": ("b.rating_key", "b.id"),
}

# The books of the shop …
BOOKS = "FROM books b WHERE b.archived_at IS NULL"
# … with a price in one currency, each at most once.
BOOKS_WITH_PRICE = "FROM books b JOIN prices p ON p.book_id = b.id WHERE b.archived_at IS NULL"

# How many there are, as far as it is worth counting.
COUNT = "SELECT count(*) FROM ({found} LIMIT %(cap)s) AS counted"

# The whole catalogue in three numbers: for the banner.
CENSUS = f"""
    SELECT (SELECT count(*) FROM books), (SELECT count(*) FROM works), (SELECT count(*) FROM ({AUTHORS}) AS authors)
"""

# Every word of the catalogue's vocabulary worth comparing with, the common ones first.
VOCABULARY = "SELECT word, books FROM search_words ORDER BY books DESC, word LIMIT 50000"

# Which of some corrections find books, and how many, counted no further than is of interest.
HITS_OF_CORRECTIONS = """
    SELECT correction.place, (
        SELECT count(*) FROM (
            SELECT FROM books b WHERE b.archived_at IS NULL AND b.search @@ (
                websearch_to_tsquery('pg_catalog.english', correction.text)
                || websearch_to_tsquery('pg_catalog.simple', correction.text))
            LIMIT 5
        ) AS matching
    ) AS hits
    FROM unnest(%(corrections)s::text[]) WITH ORDINALITY AS correction (text, place)
"""

# Titles that begin with what was typed (the 200 first in order, the best known of them), …
SUGGEST_TITLES = """
    SELECT title AS text, id FROM (
        SELECT title, id, coalesce(rating_count, 0) AS known, sort_title FROM books
        WHERE archived_at IS NULL AND sort_title >= %(typed)s AND sort_title < %(typed_end)s
        ORDER BY sort_title, id LIMIT 200
    ) AS beginning ORDER BY known DESC, sort_title, id LIMIT 16
"""

# … titles with all the words typed, the last one unfinished, …
SUGGEST_BY_WORDS = """
    SELECT title AS text, id FROM (
        SELECT title, id, coalesce(rating_count, 0) AS known, sort_title FROM books
        WHERE archived_at IS NULL AND search @@ to_tsquery('pg_catalog.simple', %(unfinished)s) LIMIT 1000
    ) AS found ORDER BY known DESC, sort_title, id LIMIT 16
"""

# … authors likewise, those with most books first, …
SUGGEST_AUTHORS = f"""
    SELECT text, id FROM (
        SELECT c.name AS text, c.id, c.sort_key, {_BOOKS_OF_CONTRIBUTOR} AS books FROM (
            SELECT id, name, sort_key FROM contributors
            WHERE words @@ to_tsquery('pg_catalog.simple', %(unfinished)s) LIMIT 200
        ) AS c
    ) AS found WHERE books > 0 ORDER BY books DESC, sort_key, id LIMIT 8
"""

# … and the words a single one may become, the common ones first; all of them are words of books in the shop …
SUGGEST_WORDS = """
    SELECT word AS text FROM search_words WHERE word > %(last)s AND word < %(last_end)s
    ORDER BY books DESC, word LIMIT 8
"""

# … and after other words those that stand beside them in a book. Looking among the common words first would cost a
# search for each, and miss the rare one that is meant.
SUGGEST_WORDS_BESIDE = """
    SELECT w.word AS text FROM (
        SELECT search FROM books
        WHERE archived_at IS NULL AND search @@ to_tsquery('pg_catalog.simple', %(unfinished)s) LIMIT 200
    ) AS found, unnest(tsvector_to_array(found.search)) AS lexeme JOIN search_words w ON w.word = lexeme COLLATE "C"
    WHERE w.word > %(last)s AND w.word < %(last_end)s
    GROUP BY w.word ORDER BY count(*) DESC, w.word LIMIT 8
"""


def page_of(found: str, *, after: bool, descending: bool, key_type: str) -> str:
    """The part of `found` (rows of `id` and `key`) that a page needs: beside `%(after_key)s`, and one row more.

    `after` is whether there is a row to begin beside. `descending` is the direction of reading, which the caller has
    turned round for a page before.
    """
    compared, order = ("<", "DESC") if descending else (">", "ASC")
    # CAST, because `-2147483648::integer` is the negative of a number too large
    where = f"WHERE (key, id) {compared} (CAST(%(after_key)s AS {key_type}), %(after_id)s)" if after else ""
    return f"SELECT id, key FROM ({found}) AS found {where} ORDER BY key {order}, id {order} LIMIT %(rows)s"


def in_page_order(shown: str, *, descending: bool) -> str:
    order = "DESC" if descending else "ASC"
    return f"{shown} ORDER BY page.key {order}, page.id {order}"
