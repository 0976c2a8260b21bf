-- What a book costs, one price per currency, and how many there are: a counter that only its ledger can move.

CREATE TABLE currencies (
    code text PRIMARY KEY CHECK (code ~ '^[A-Z]{3}$'),
    exponent smallint NOT NULL CHECK (exponent BETWEEN 0 AND 4),
    UNIQUE (code, exponent)
);

-- ISO 4217, every code that has decimals; bookstore/catalogue/currencies.py holds the same.
INSERT INTO currencies (code, exponent)
SELECT unnest(string_to_array('BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF', ' ')), 0
UNION ALL SELECT unnest(string_to_array('BHD IQD JOD KWD LYD OMR TND', ' ')), 3
UNION ALL SELECT unnest(string_to_array('CLF UYW', ' ')), 4
UNION ALL SELECT unnest(string_to_array(
    'AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW '
    'CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF '
    'IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK '
    'MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP '
    'SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG '
    'YER ZAR ZMW ZWG', ' ')), 2;

-- The amount is in minor units, so whoever writes a price says how many decimals it believes the currency has, and the
-- database refuses the one who believes that JPY has two.
CREATE TABLE prices (
    book_id bigint NOT NULL REFERENCES books,
    currency text NOT NULL,
    exponent smallint NOT NULL,
    amount bigint NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (book_id, currency),
    FOREIGN KEY (currency, exponent) REFERENCES currencies (code, exponent)
);

CREATE INDEX prices_in_order ON prices (currency, amount, book_id);

CREATE TRIGGER prices_added AFTER INSERT ON prices REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION raise_versions_of_changed_books();
CREATE TRIGGER prices_changed AFTER UPDATE ON prices REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION raise_versions_of_changed_books();
CREATE TRIGGER prices_removed AFTER DELETE ON prices REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION raise_versions_of_changed_books();

CREATE TABLE stock (
    book_id bigint PRIMARY KEY REFERENCES books,
    on_hand integer NOT NULL DEFAULT 0,
    allocated integer NOT NULL DEFAULT 0,
    CONSTRAINT stock_is_never_negative CHECK (on_hand >= 0 AND allocated >= 0),
    CONSTRAINT stock_is_never_promised_twice CHECK (allocated <= on_hand)
);

CREATE TABLE stock_movements (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    book_id bigint NOT NULL REFERENCES books,
    kind text NOT NULL,
    on_hand_change integer NOT NULL DEFAULT 0,
    allocated_change integer NOT NULL DEFAULT 0,
    reason text CHECK (char_length(reason) BETWEEN 1 AND 1000),
    reference text CHECK (char_length(reference) BETWEEN 1 AND 200),    -- the order or the import it belongs to
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT stock_movements_mean_what_they_say CHECK (CASE kind
        WHEN 'received' THEN on_hand_change > 0 AND allocated_change = 0
        WHEN 'adjusted' THEN on_hand_change <> 0 AND allocated_change = 0 AND reason IS NOT NULL
        WHEN 'allocated' THEN on_hand_change = 0 AND allocated_change > 0
        WHEN 'released' THEN on_hand_change = 0 AND allocated_change < 0
        WHEN 'shipped' THEN on_hand_change < 0 AND allocated_change = on_hand_change
        WHEN 'returned' THEN on_hand_change > 0 AND allocated_change = 0
        ELSE false END)
);

CREATE INDEX stock_movements_of_a_book ON stock_movements (book_id, id);

-- The counter's only writer. Rows are locked in the order of their ids, however many one statement moves: unsorted
-- lines deadlock. The rows are made first and then updated, because the checks of an INSERT … ON CONFLICT DO UPDATE
-- look at the row as proposed: an allocation alone (0 on hand, 1 allocated) would be refused whatever there is.
CREATE FUNCTION apply_stock_movements() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stock (book_id) SELECT DISTINCT book_id FROM moved ORDER BY book_id ON CONFLICT DO NOTHING;
    PERFORM FROM stock WHERE book_id IN (SELECT book_id FROM moved) ORDER BY book_id FOR UPDATE;
    UPDATE stock SET on_hand = stock.on_hand + change.on_hand, allocated = stock.allocated + change.allocated
        FROM (SELECT book_id, sum(on_hand_change)::int AS on_hand, sum(allocated_change)::int AS allocated
              FROM moved GROUP BY book_id) AS change
        WHERE stock.book_id = change.book_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER stock_movements_move_the_counter AFTER INSERT ON stock_movements REFERENCING NEW TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION apply_stock_movements();

CREATE FUNCTION refuse_direct_stock_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % refused: insert a row into stock_movements instead', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER stock_is_moved_by_its_ledger_only BEFORE INSERT OR UPDATE OR DELETE ON stock
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_direct_stock_writes();
CREATE TRIGGER stock_movements_are_never_rewritten BEFORE UPDATE OR DELETE ON stock_movements
    FOR EACH ROW EXECUTE FUNCTION refuse_direct_stock_writes();
