-- Burials, and the records that go: those of which every write is to a buried item, or was covered
-- too long ago.

-- Signed lists of deleted items, in the order in which they came; number counts from 1.
CREATE TABLE burials (
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    number    INTEGER NOT NULL,
    wire      BLOB NOT NULL,                        -- SignedBurial as it travels
    PRIMARY KEY (namespace, number)
);

CREATE TABLE buried (
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    item      BLOB NOT NULL,
    PRIMARY KEY (namespace, item)
) WITHOUT ROWID;

-- Up to which number records of an actor were dropped: what comes with such a number is refused.
CREATE TABLE dropped (
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    actor     BLOB NOT NULL,
    sequence  INTEGER NOT NULL,
    PRIMARY KEY (namespace, actor)
) WITHOUT ROWID;

DROP INDEX contents_by_position;
CREATE INDEX dots_by_position ON dots (namespace, position, register);
CREATE INDEX dots_covered ON dots (covered_s) WHERE covered_s IS NOT NULL;
CREATE INDEX record_blocks_by_position ON record_blocks (namespace, position);
