-- Takes prices and stock away, the ledger included.
DROP TABLE stock_movements;
DROP TABLE stock;
DROP TABLE prices;
DROP TABLE currencies;
DROP FUNCTION refuse_direct_stock_writes();
DROP FUNCTION apply_stock_movements();
