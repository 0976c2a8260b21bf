-- Forgets which file brought what; the books stay.
DROP TABLE import_rows;
DROP TABLE import_jobs;
