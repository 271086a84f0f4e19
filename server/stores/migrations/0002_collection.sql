-- What block collection needs: which record lists which block, which page has which children, and
-- which contents were covered since when. What earlier releases stored is looked through once, in
-- steps; until that is done nothing is collected.

ALTER TABLE records ADD COLUMN is_indexed INTEGER NOT NULL DEFAULT 0;   -- 1: its blocks and covers are known
ALTER TABLE dots ADD COLUMN covered_s INTEGER;                          -- contents: when another record covered it
ALTER TABLE blocks ADD COLUMN condemned_s INTEGER;                      -- since when nothing has needed it
ALTER TABLE blocks ADD COLUMN are_children_known INTEGER NOT NULL DEFAULT 0;

CREATE TABLE record_blocks (
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    block     BLOB NOT NULL,                        -- BlockId, as the record lists it
    position  INTEGER NOT NULL,                     -- of the record
    PRIMARY KEY (namespace, block, position)
) WITHOUT ROWID;

-- From the clear headers of pages.
CREATE TABLE block_children (
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    child     BLOB NOT NULL,                        -- BlockId
    parent    BLOB NOT NULL,                        -- BlockId of a page in blocks
    PRIMARY KEY (namespace, child, parent)
) WITHOUT ROWID;

CREATE INDEX block_children_by_parent ON block_children (namespace, parent);
CREATE INDEX records_not_indexed ON records (id) WHERE is_indexed = 0;
CREATE INDEX blocks_not_indexed ON blocks (namespace, block) WHERE are_children_known = 0;
CREATE INDEX blocks_condemned ON blocks (condemned_s) WHERE condemned_s IS NOT NULL;
CREATE INDEX contents_by_position ON dots (namespace, position) WHERE register = 2;
CREATE INDEX blocks_by_id ON blocks (block);
