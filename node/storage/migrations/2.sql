-- From schema 1 to 2. What it makes is what schema.sql makes; a test compares the two.
ALTER TABLE versions ADD COLUMN automatic INTEGER NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE alarms ADD COLUMN evidence BLOB;
ALTER TABLE items ADD COLUMN twin BLOB;
ALTER TABLE records ADD COLUMN doubted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE records ADD COLUMN may_be_elsewhere INTEGER NOT NULL DEFAULT 1;
DROP INDEX outbox;
CREATE INDEX outbox ON records (doubted, actor, sequence) WHERE position IS NULL;
INSERT INTO meta VALUES ('twins_unknown', 1);  -- the tree finds them when it opens
CREATE INDEX links_of_folders ON links (parent) WHERE is_folder = 1;
CREATE INDEX versions_by_staging ON versions (staging) WHERE staging IS NOT NULL;
CREATE TABLE history (
    item       BLOB NOT NULL,
    actor      BLOB NOT NULL,
    n          INTEGER NOT NULL,
    context    BLOB NOT NULL,
    time_us    INTEGER NOT NULL,
    device     BLOB NOT NULL,
    value      BLOB NOT NULL,
    automatic  INTEGER NOT NULL,
    covered_us INTEGER,
    PRIMARY KEY (item, actor, n)
) STRICT;
CREATE INDEX history_by_age ON history (covered_us);

CREATE TABLE heads (
    actor    BLOB PRIMARY KEY,
    device   BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    record   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE heads_ahead (
    actor    BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    record   BLOB NOT NULL,
    previous BLOB NOT NULL,
    PRIMARY KEY (actor, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE held (
    record    BLOB PRIMARY KEY,
    device    BLOB NOT NULL,
    time_us   INTEGER NOT NULL,
    deletions INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    wire      BLOB NOT NULL
) STRICT;

CREATE TABLE unmergeable (
    item   BLOB PRIMARY KEY,
    state  BLOB NOT NULL,
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX records_by_position ON records (position) WHERE position IS NOT NULL;
CREATE TABLE deletions (
    device BLOB NOT NULL,
    slot   INTEGER NOT NULL,
    held   INTEGER NOT NULL,
    items  INTEGER NOT NULL,
    PRIMARY KEY (device, slot, held)
) STRICT, WITHOUT ROWID;

CREATE TABLE totals (
    items INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
INSERT INTO totals SELECT count(*), coalesce(sum(size), 0) FROM items
WHERE EXISTS (SELECT 1 FROM entries WHERE entries.item = items.item);
CREATE TRIGGER entry_added AFTER INSERT ON entries
WHEN NOT EXISTS (SELECT 1 FROM entries
                 WHERE item = NEW.item AND (parent <> NEW.parent OR shown <> NEW.shown))
BEGIN
    UPDATE totals SET items = items + 1,
                      bytes = bytes + coalesce((SELECT size FROM items WHERE item = NEW.item), 0);
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries
WHEN NOT EXISTS (SELECT 1 FROM entries WHERE item = OLD.item)
BEGIN
    UPDATE totals SET items = items - 1,
                      bytes = bytes - coalesce((SELECT size FROM items WHERE item = OLD.item), 0);
END;
CREATE TRIGGER item_resized AFTER UPDATE OF size ON items
WHEN NEW.size <> OLD.size AND EXISTS (SELECT 1 FROM entries WHERE item = NEW.item)
BEGIN
    UPDATE totals SET bytes = bytes + NEW.size - OLD.size;
END;
CREATE TRIGGER item_added AFTER INSERT ON items
WHEN EXISTS (SELECT 1 FROM entries WHERE item = NEW.item)
BEGIN
    UPDATE totals SET bytes = bytes + NEW.size;
END;
CREATE TRIGGER item_removed AFTER DELETE ON items
WHEN EXISTS (SELECT 1 FROM entries WHERE item = OLD.item)
BEGIN
    UPDATE totals SET bytes = bytes - OLD.size;
END;

CREATE TABLE deferred (
    record   BLOB PRIMARY KEY,
    position INTEGER NOT NULL,
    wire     BLOB NOT NULL
) STRICT;

CREATE TABLE buried (
    item     BLOB PRIMARY KEY,
    is_done  INTEGER NOT NULL,
    is_given INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX buried_waiting ON buried (item) WHERE is_done = 0;
CREATE INDEX buried_lost ON buried (item) WHERE is_given = 0;

CREATE TABLE aside (
    id      INTEGER PRIMARY KEY,
    item    BLOB NOT NULL,
    path    BLOB NOT NULL UNIQUE,
    actor   BLOB NOT NULL,
    n       INTEGER NOT NULL,
    time_us INTEGER NOT NULL,
    device  BLOB NOT NULL,
    value   BLOB NOT NULL,
    blocks  BLOB NOT NULL
) STRICT;
