-- The index of one node: what it knows of its namespace, what it shows, what it has not yet sent.
-- One encrypted SQLite database in WAL mode, used inline by the node's one loop. Times are hybrid
-- times in microseconds since 1970 (*_us) or file times in nanoseconds (*_ns). Ids are raw bytes.

-- Single values: schema version, namespace, cursor of the server's journal, next inode number.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

-- Devices met in verified account logs, with their opened names.
CREATE TABLE devices (
    device         BLOB PRIMARY KEY,
    account        BLOB NOT NULL,
    signing_public BLOB NOT NULL,
    name           TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The lattice: live values of registers. A value that a known context covers is not here.
CREATE TABLE versions (
    item     BLOB NOT NULL,
    register INTEGER NOT NULL,      -- protocol.records.Register
    actor    BLOB NOT NULL,         -- the dot
    n        INTEGER NOT NULL,      -- the dot
    context  BLOB NOT NULL,         -- canonical Context; dots that the writer had seen
    time_us  INTEGER NOT NULL,      -- hybrid time of the write
    device   BLOB NOT NULL,         -- the writer's device
    record   BLOB,                  -- the record that carries it; NULL: written here, not yet sealed
    pending  INTEGER,               -- groups.id while not yet sealed, else NULL
    staging  BLOB,                  -- canonical [staging name, size, mtime_ns] of bytes not yet sealed;
                                    -- then value is the content that they were written over
    value    BLOB NOT NULL,         -- canonical value of the register, opened
    automatic INTEGER NOT NULL DEFAULT 0, -- 1: made by a node on its own (a merge)
    PRIMARY KEY (item, register, actor, n)
) STRICT;  -- with rowids: values are appended, and the keys beside them stay dense
CREATE INDEX versions_by_record ON versions (record) WHERE record IS NOT NULL;
CREATE INDEX versions_by_group ON versions (pending) WHERE pending IS NOT NULL;
CREATE INDEX versions_by_staging ON versions (staging) WHERE staging IS NOT NULL;

-- The lattice: union of all contexts seen for a register. No row: empty.
CREATE TABLE covered (
    item     BLOB NOT NULL,
    register INTEGER NOT NULL,
    context  BLOB NOT NULL,
    PRIMARY KEY (item, register)
) STRICT, WITHOUT ROWID;

-- Contents that were covered after a record had carried them: the bases of merges. Kept for the
-- retention time; their blocks are where they were.
CREATE TABLE history (
    item       BLOB NOT NULL,
    actor      BLOB NOT NULL,       -- the dot
    n          INTEGER NOT NULL,
    context    BLOB NOT NULL,
    time_us    INTEGER NOT NULL,    -- hybrid time of the write
    device     BLOB NOT NULL,
    value      BLOB NOT NULL,       -- canonical Content
    automatic  INTEGER NOT NULL,
    covered_us INTEGER,             -- local clock; NULL until it was first looked for what is too old
    PRIMARY KEY (item, actor, n)
) STRICT;  -- with rowids, as versions
CREATE INDEX history_by_age ON history (covered_us);

-- Conflicts that can not be merged: not tried again, nor read, before something changes.
CREATE TABLE unmergeable (
    item   BLOB PRIMARY KEY,
    state  BLOB NOT NULL,           -- digest of the siblings and of how many versions are known
    reason TEXT NOT NULL            -- a clause
) STRICT, WITHOUT ROWID;

-- Local changes that will travel in one record.
CREATE TABLE groups (
    id       INTEGER PRIMARY KEY,   -- ascending in order of the first change
    first_us INTEGER NOT NULL,      -- of its first change, by this device's clock
    last_us  INTEGER NOT NULL,      -- of its latest change; the settle time counts from it
    urgent   INTEGER NOT NULL DEFAULT 0, -- 1: do not wait (fsync, replace-rename)
    held     INTEGER NOT NULL DEFAULT 0  -- 1: deletes more than may go without a question; 2: approved
) STRICT;

-- Folders whose entries a pending group changed; goes into its record.
CREATE TABLE group_folders (
    pending INTEGER NOT NULL,
    folder  BLOB NOT NULL,
    time_us INTEGER NOT NULL,
    before_us INTEGER NOT NULL,     -- its time without any waiting group, should they come to nothing
    PRIMARY KEY (pending, folder)
) STRICT, WITHOUT ROWID;

-- Sealed records: own ones that the server has not acknowledged (position NULL) and those of which
-- a write lives. Others are dropped.
CREATE TABLE records (
    record   BLOB PRIMARY KEY,
    actor    BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    position INTEGER,               -- in the server's journal; NULL: still to be sent
    wire     BLOB NOT NULL,
    doubted  INTEGER NOT NULL DEFAULT 0, -- 1: a server that began anew once had it; it is sent again
                                         -- if that server's journal, read to its end, lacks it
    may_be_elsewhere INTEGER NOT NULL DEFAULT 1 -- 0: made here, and surely nowhere else yet
) STRICT;
CREATE INDEX outbox ON records (doubted, actor, sequence) WHERE position IS NULL;
CREATE INDEX records_by_position ON records (position) WHERE position IS NOT NULL;

-- What the server is asked to hold before an outbox record may be sent.
CREATE TABLE record_blocks (
    record BLOB NOT NULL,
    block  BLOB NOT NULL,
    PRIMARY KEY (record, block)
) STRICT, WITHOUT ROWID;
CREATE INDEX record_blocks_by_block ON record_blocks (block);

-- Per author the record up to which its chain is whole: all before it were taken in here. What came
-- beyond a gap waits in heads_ahead until the gap closes.
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
    previous BLOB NOT NULL,         -- the record that it names as the one before it
    PRIMARY KEY (actor, sequence)
) STRICT, WITHOUT ROWID;

-- Records of other devices that delete more than may go without a question: without effect until
-- somebody approves.
CREATE TABLE held (
    record    BLOB PRIMARY KEY,
    device    BLOB NOT NULL,
    time_us   INTEGER NOT NULL,     -- hybrid time of the record
    deletions INTEGER NOT NULL,     -- items that it deletes
    position  INTEGER NOT NULL,     -- in the server's journal
    wire      BLOB NOT NULL
) STRICT;

-- The deletion guard's window: how many items each device deleted of late.
CREATE TABLE deletions (
    device BLOB NOT NULL,
    slot   INTEGER NOT NULL,        -- hybrid time of the records, in units of 10 s
    held   INTEGER NOT NULL,        -- 1: they wait for an approval
    items  INTEGER NOT NULL,
    PRIMARY KEY (device, slot, held)
) STRICT, WITHOUT ROWID;

-- Records of other devices that change a database which a program here has open: without effect
-- until it is closed.
CREATE TABLE deferred (
    record   BLOB PRIMARY KEY,
    position INTEGER NOT NULL,      -- in the server's journal
    wire     BLOB NOT NULL
) STRICT;

-- Records that can not take effect here (unknown format, bad seal), with the reason; kept, reported.
CREATE TABLE rejected (
    record BLOB PRIMARY KEY,
    reason TEXT NOT NULL,
    wire   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The view: one row per item that has content, shown or not.
CREATE TABLE items (
    inode           INTEGER PRIMARY KEY,      -- never reused; a remote replace of an open file takes a new one
    item            BLOB NOT NULL UNIQUE,
    kind            INTEGER NOT NULL,         -- protocol.values.Kind
    mode            INTEGER NOT NULL,         -- permission bits
    uid             INTEGER,                  -- NULL: the drive's owner
    gid             INTEGER,                  -- NULL: the drive's owner's group
    size            INTEGER NOT NULL,
    mtime_ns        INTEGER NOT NULL,         -- of files and the like
    ctime_ns        INTEGER NOT NULL,         -- local clock, when a change was last applied here
    device_number   INTEGER NOT NULL,
    xattr_count     INTEGER NOT NULL,         -- 0 answers most questions for xattrs at once
    content_actor   BLOB NOT NULL,            -- dot of the shown content
    content_n       INTEGER NOT NULL,
    explicit_ns     INTEGER,                  -- folders: a time set by a program ...
    explicit_set_us INTEGER,                  -- ... and when it was set
    entries_us      INTEGER NOT NULL DEFAULT 0, -- folders: the latest change of entries
    conflicts       INTEGER NOT NULL,         -- content siblings with other bytes
    merged_into     BLOB,                     -- folders: shown as one with this folder of the same name
    twin            BLOB                      -- files, symlinks: digest of what they hold; items of one name
                                              -- with one digest are shown as one. NULL: never
) STRICT;
CREATE INDEX items_merged ON items (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX items_in_conflict ON items (inode) WHERE conflicts > 0;

-- The view: effective links of living items, by the name that they want.
CREATE TABLE links (
    item      BLOB NOT NULL,
    link      BLOB NOT NULL,
    parent    BLOB NOT NULL,        -- as written; a folder that is merged into another keeps its own id here
    name      BLOB NOT NULL,
    time_us   INTEGER NOT NULL,     -- of the placement, with dot and device: who came first
    actor     BLOB NOT NULL,
    n         INTEGER NOT NULL,
    device    BLOB NOT NULL,
    is_folder INTEGER NOT NULL,
    PRIMARY KEY (item, link)
) STRICT, WITHOUT ROWID;
CREATE INDEX links_by_name ON links (parent, name);
CREATE INDEX links_of_folders ON links (parent) WHERE is_folder = 1;

-- The view: what a folder lists.
CREATE TABLE entries (
    parent BLOB NOT NULL,           -- the folder that stands for all merged ones
    shown  BLOB NOT NULL,           -- unique name
    name   BLOB NOT NULL,           -- the name wanted; differs from shown in a contest
    item   BLOB NOT NULL,
    link   BLOB NOT NULL,
    PRIMARY KEY (parent, shown)
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_by_name ON entries (parent, name) WHERE shown <> name;
CREATE INDEX entries_by_item ON entries (item);

-- The view: how many items it shows and the sum of their sizes. One row, kept by triggers, so that
-- neither a report nor the deletion guard has to count a million items.
CREATE TABLE totals (
    items INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (0, 0);
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

-- Folders that can not hang where they want because of a cycle.
CREATE TABLE cuts (
    folder BLOB PRIMARY KEY,
    parent BLOB NOT NULL,           -- where they hang instead; their row in links says the same
    wanted BLOB NOT NULL            -- where they want to hang
) STRICT, WITHOUT ROWID;

-- Deleted items that need not be remembered: nothing that was ever written to them has an effect.
CREATE TABLE buried (
    item     BLOB PRIMARY KEY,
    is_done  INTEGER NOT NULL,      -- 0: something of it may still be here
    is_given INTEGER NOT NULL       -- 0: the server may not have it, as after a backup was restored
) STRICT, WITHOUT ROWID;
CREATE INDEX buried_waiting ON buried (item) WHERE is_done = 0;
CREATE INDEX buried_lost ON buried (item) WHERE is_given = 0;

-- What only this device had of buried files; shown in .atoll/aside until the user removes it.
CREATE TABLE aside (
    id      INTEGER PRIMARY KEY,
    item    BLOB NOT NULL,
    path    BLOB NOT NULL UNIQUE,   -- where it was, from the root, without a leading slash
    actor   BLOB NOT NULL,          -- the dot of the content
    n       INTEGER NOT NULL,
    time_us INTEGER NOT NULL,       -- hybrid time of the write
    device  BLOB NOT NULL,
    value   BLOB NOT NULL,          -- canonical Content
    blocks  BLOB NOT NULL           -- ids of all its blocks, one after the other
) STRICT;

-- Things that a user must know of; shown by status until settled.
CREATE TABLE alarms (
    id      INTEGER PRIMARY KEY,
    time_us INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    message TEXT NOT NULL,
    evidence BLOB,                  -- canonical list of the signed records or events that prove it
    UNIQUE (kind, message)
) STRICT;
