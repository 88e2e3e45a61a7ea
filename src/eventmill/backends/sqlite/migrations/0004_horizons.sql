-- The position up to which messages of a topic may have been removed; a topic that is not here is whole.
CREATE TABLE eventmill_horizons (
    topic TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;

-- What was trimmed before this was kept: of which topic is not known any more.
INSERT INTO eventmill_horizons (topic, position)
SELECT topic, (SELECT max(position) FROM eventmill_trimmed) FROM eventmill_topics
WHERE EXISTS (SELECT 1 FROM eventmill_trimmed);
