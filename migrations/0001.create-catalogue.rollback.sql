-- Takes the catalogue away, with everything in it.
DROP TABLE book_subjects;
DROP TABLE book_contributors;
DROP TABLE subjects;
DROP TABLE contributors;
DROP TABLE books;
DROP TABLE works;
DROP TABLE series;
DROP TABLE publishers;
DROP TABLE search_words;
DROP FUNCTION raise_versions_of_changed_books();
DROP FUNCTION raise_book_version();
DROP FUNCTION refresh_search_words();
DROP FUNCTION search_document(text, text, text, text);
DROP FUNCTION isbn13_is_valid(text);
