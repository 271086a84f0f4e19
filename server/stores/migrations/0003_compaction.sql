-- Compaction: how far each device has applied each journal. A record that was dropped keeps its row,
-- with an empty wire, so that its position and its place in its actor's chain stay taken; its dots and
-- its blocks are forgotten.

CREATE TABLE acknowledgements (
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    device    BLOB NOT NULL,
    wire      BLOB NOT NULL,                        -- SignedAcknowledgement as it travels, the latest
    PRIMARY KEY (namespace, device)
) WITHOUT ROWID;
