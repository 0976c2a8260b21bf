-- What the shop sells: works and their editions, who made them, what they are about, and how they are found.

-- Ids are plain bigints: small in every index, and strings to clients, who are promised nothing else about them.
-- Text that is compared, sorted or searched is folded by the application (bookstore/catalogue/folding.py) and stored
-- beside what people see, in COLLATE "C": the order of pages must not change with the server's locale.

-- 979-0 is the ISMN's: sheet music, not books.
-- NB: CASE, because AND promises no order and the casts would fail on anything but digits.
CREATE FUNCTION isbn13_is_valid(isbn text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN isbn ~ '^97(8[0-9]|9[1-9])[0-9]{9}$' THEN (
          substr(isbn, 1, 1)::int + substr(isbn, 2, 1)::int * 3 + substr(isbn, 3, 1)::int + substr(isbn, 4, 1)::int * 3
        + substr(isbn, 5, 1)::int + substr(isbn, 6, 1)::int * 3 + substr(isbn, 7, 1)::int + substr(isbn, 8, 1)::int * 3
        + substr(isbn, 9, 1)::int + substr(isbn, 10, 1)::int * 3 + substr(isbn, 11, 1)::int
        + substr(isbn, 12, 1)::int * 3 + substr(isbn, 13, 1)::int) % 10 = 0
    ELSE false END
$$;

-- The four arguments are words already folded: title A in both configurations ('english' finds "running" by "run",
-- 'simple' keeps the stop words, so that *It* is found), contributors B, subtitle and series C, subjects D.
CREATE FUNCTION search_document(title text, contributors text, extra text, subjects text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT setweight(to_tsvector('pg_catalog.english', coalesce(title, '')), 'A')
        || setweight(to_tsvector('pg_catalog.simple', coalesce(title, '')), 'A')
        || setweight(to_tsvector('pg_catalog.simple', coalesce(contributors, '')), 'B')
        || setweight(to_tsvector('pg_catalog.english', coalesce(extra, '')), 'C')
        || setweight(to_tsvector('pg_catalog.simple', coalesce(extra, '')), 'C')
        || setweight(to_tsvector('pg_catalog.english', coalesce(subjects, '')), 'D')
        || setweight(to_tsvector('pg_catalog.simple', coalesce(subjects, '')), 'D')
$$;

CREATE TABLE publishers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 300),
    name_key text COLLATE "C" NOT NULL UNIQUE CHECK (name_key <> '')
);

CREATE TABLE series (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 1000),
    title_key text COLLATE "C" NOT NULL UNIQUE CHECK (title_key <> '')
);

CREATE TABLE works (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reference text UNIQUE,                      -- what the feed that brought it calls it; groups editions over imports
    title text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 1000),
    sort_title text COLLATE "C" NOT NULL CHECK (sort_title <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE books (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    work_id bigint NOT NULL REFERENCES works,
    isbn13 text UNIQUE CHECK (isbn13_is_valid(isbn13)),
    sku text UNIQUE CHECK (char_length(sku) BETWEEN 1 AND 100),
    title text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 1000),
    subtitle text CHECK (char_length(subtitle) BETWEEN 1 AND 1000),
    sort_title text COLLATE "C" NOT NULL CHECK (sort_title <> ''),
    series_id bigint REFERENCES series,
    series_number text CHECK (char_length(series_number) BETWEEN 1 AND 50),
    publisher_id bigint REFERENCES publishers,
    format text CHECK (format ~ '^[A-Z][A-Z0-9]$'),                         -- ONIX list 150; null: not known
    availability text NOT NULL DEFAULT '20' CHECK (availability ~ '^[0-9]{2}$'),  -- ONIX list 65; 20: available
    language text CHECK (language ~ '^[a-z]{2,3}$'),                        -- ISO 639, the shortest code there is
    published_year integer CHECK (published_year BETWEEN -5000 AND 9999),
    published_on date CHECK (published_on >= DATE '0001-01-01'),
    rating numeric(3, 2) CHECK (rating BETWEEN 0 AND 5),
    rating_count integer CHECK (rating_count >= 0),
    rating_source text CHECK (rating_source IN ('imported', 'readers')),
    version bigint NOT NULL DEFAULT 1,
    archived_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    search tsvector NOT NULL DEFAULT '',        -- search_document(…), written with whatever it is made of
    -- Never null, so that one row comparison pages through them; what is not known comes last in descending order.
    published_key integer NOT NULL GENERATED ALWAYS AS (coalesce(published_year * 10000 + coalesce(
        extract(month FROM published_on)::int * 100 + extract(day FROM published_on)::int, 0), -2147483648)) STORED,
    rating_key numeric(3, 2) NOT NULL GENERATED ALWAYS AS (coalesce(rating, -1)) STORED,
    CONSTRAINT books_have_a_natural_key CHECK (isbn13 IS NOT NULL OR sku IS NOT NULL),
    CONSTRAINT books_published_on_is_in_its_year CHECK (published_on IS NULL OR (published_year IS NOT NULL
        AND extract(year FROM published_on)::int = published_year)),
    CONSTRAINT books_series_number_needs_a_series CHECK (series_number IS NULL OR series_id IS NOT NULL),
    CONSTRAINT books_rating_has_a_source CHECK ((rating IS NULL) = (rating_source IS NULL))
);

CREATE INDEX books_by_title ON books (sort_title, id) WHERE archived_at IS NULL;
CREATE INDEX books_by_published ON books (published_key, id) WHERE archived_at IS NULL;
CREATE INDEX books_by_rating ON books (rating_key, id) WHERE archived_at IS NULL;
CREATE INDEX books_by_language ON books (language, sort_title, id) WHERE archived_at IS NULL;
CREATE INDEX books_by_format ON books (format, sort_title, id) WHERE archived_at IS NULL;
CREATE INDEX books_of_a_work ON books (work_id);
CREATE INDEX books_of_a_series ON books (series_id);
CREATE INDEX books_of_a_publisher ON books (publisher_id);
CREATE INDEX books_by_sku_in_any_case ON books (lower(sku COLLATE "C"));     -- people type it as they like
CREATE INDEX books_by_words ON books USING gin (search);

CREATE TABLE contributors (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 300),
    name_key text COLLATE "C" NOT NULL UNIQUE CHECK (name_key <> ''),
    sort_key text COLLATE "C" NOT NULL CHECK (sort_key <> ''),
    words tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('pg_catalog.simple', name_key)) STORED
);

CREATE INDEX contributors_in_order ON contributors (sort_key, id);
CREATE INDEX contributors_by_words ON contributors USING gin (words);

CREATE TABLE book_contributors (
    book_id bigint NOT NULL REFERENCES books,
    position smallint NOT NULL CHECK (position >= 1),
    contributor_id bigint NOT NULL REFERENCES contributors,
    role text NOT NULL CHECK (role ~ '^[A-Z][0-9]{2}$'),                    -- ONIX list 17
    PRIMARY KEY (book_id, position),
    UNIQUE (contributor_id, book_id, role)
);

CREATE TABLE subjects (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scheme text NOT NULL CHECK (scheme IN ('thema', 'bisac', 'keyword')),
    code text COLLATE "C" NOT NULL CHECK (char_length(code) BETWEEN 1 AND 200),   -- a keyword's code is its folded heading
    heading text NOT NULL CHECK (char_length(heading) BETWEEN 1 AND 300),
    heading_key text COLLATE "C" NOT NULL CHECK (heading_key <> ''),
    UNIQUE (scheme, code)
);

CREATE INDEX subjects_in_order ON subjects (heading_key, id);
CREATE INDEX subjects_by_code ON subjects (code);

CREATE TABLE book_subjects (
    book_id bigint NOT NULL REFERENCES books,
    subject_id bigint NOT NULL REFERENCES subjects,
    PRIMARY KEY (book_id, subject_id)
);

CREATE INDEX books_of_a_subject ON book_subjects (subject_id, book_id);

-- The vocabulary of what the shop sells, folded: for "did you mean" and for completing the word being typed.
CREATE TABLE search_words (
    word text COLLATE "C" PRIMARY KEY,
    books integer NOT NULL CHECK (books > 0)
);

-- Writes only what differs, so that an import that changes nothing writes nothing. Returns how many words changed.
CREATE FUNCTION refresh_search_words() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
    gone bigint;
BEGIN
    CREATE TEMPORARY TABLE current_search_words ON COMMIT DROP AS
        SELECT word COLLATE "C" AS word, sum(ndoc)::int AS books FROM (
            SELECT word, ndoc FROM ts_stat(
                'SELECT to_tsvector(''pg_catalog.simple'', sort_title) FROM books WHERE archived_at IS NULL')
            UNION ALL
            SELECT word, ndoc FROM ts_stat('SELECT words FROM contributors c WHERE EXISTS (
                SELECT FROM book_contributors bc JOIN books b ON b.id = bc.book_id
                WHERE bc.contributor_id = c.id AND b.archived_at IS NULL)')
        ) AS found WHERE char_length(word) BETWEEN 3 AND 40 AND word ~ '[^0-9]' GROUP BY 1;
    -- What is the same is not even tried: ON CONFLICT locks the row it meets, and a row lock is a write.
    INSERT INTO search_words (word, books) SELECT word, books FROM current_search_words AS now_there
        WHERE NOT EXISTS (SELECT FROM search_words AS known
            WHERE known.word = now_there.word AND known.books = now_there.books)
        ORDER BY word ON CONFLICT (word) DO UPDATE SET books = excluded.books;
    GET DIAGNOSTICS changed = ROW_COUNT;
    DELETE FROM search_words AS known
        WHERE NOT EXISTS (SELECT FROM current_search_words AS now_there WHERE now_there.word = known.word);
    GET DIAGNOSTICS gone = ROW_COUNT;
    DROP TABLE current_search_words;
    RETURN changed + gone;
END
$$;

-- The version is the book's ETag: every UPDATE of the row raises it (so write only where something differs) …
CREATE FUNCTION raise_book_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TRIGGER books_raise_their_version BEFORE UPDATE ON books
    FOR EACH ROW EXECUTE FUNCTION raise_book_version();

-- … and so does every change of what the book is shown with, except in the transaction that wrote the book anyway
-- (its xmin says so): an import of 10,000 new books updates none of them.
CREATE FUNCTION raise_versions_of_changed_books() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE books SET updated_at = clock_timestamp()
        WHERE id IN (SELECT book_id FROM changed) AND xmin <> pg_current_xact_id()::xid;
    RETURN NULL;
END
$$;

CREATE TRIGGER contributors_added AFTER INSERT ON book_contributors REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION raise_versions_of_changed_books();
CREATE TRIGGER contributors_changed AFTER UPDATE ON book_contributors REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION raise_versions_of_changed_books();
CREATE TRIGGER contributors_removed AFTER DELETE ON book_contributors REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION raise_versions_of_changed_books();
CREATE TRIGGER subjects_added AFTER INSERT ON book_subjects REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION raise_versions_of_changed_books();
CREATE TRIGGER subjects_removed AFTER DELETE ON book_subjects REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION raise_versions_of_changed_books();
