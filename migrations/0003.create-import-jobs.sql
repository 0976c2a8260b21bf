-- What came in by which file: one row per import, and one per row of the file that has something to say.

CREATE TABLE import_jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,                       -- the file's name, or 'sample'
    format text NOT NULL CHECK (format IN ('csv', 'jsonl', 'onix')),
    preset text,
    options jsonb NOT NULL DEFAULT '{}',        -- the mapping and the defaults it ran with
    dry_run boolean NOT NULL DEFAULT false,
    status text NOT NULL DEFAULT 'running' CHECK (status IN ('queued', 'running', 'finished', 'failed')),
    error text,
    rows_read bigint NOT NULL DEFAULT 0 CHECK (rows_read >= 0),
    summary jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT import_jobs_finish_once CHECK ((finished_at IS NOT NULL) = (status IN ('finished', 'failed')))
);

CREATE INDEX import_jobs_by_source ON import_jobs (source, id);

CREATE TABLE import_rows (
    job_id bigint NOT NULL REFERENCES import_jobs ON DELETE CASCADE,
    row_number bigint NOT NULL CHECK (row_number >= 1),
    status text NOT NULL CHECK (status IN ('created', 'updated', 'unchanged', 'failed')),
    book_id bigint REFERENCES books,
    issues jsonb NOT NULL DEFAULT '[]',         -- [{"severity": "error|warning", "column", "value", "reason"}]
    PRIMARY KEY (job_id, row_number)
);

CREATE INDEX import_rows_by_status ON import_rows (job_id, status, row_number);
CREATE INDEX import_rows_of_a_book ON import_rows (book_id);
