-- Every table starts with eventmill_, because the user's own tables live in the same file.

-- The log. One writer at a time means: position order is commit order, so no reader can pass an
-- open lower position.
-- Readers scan forward from a position and filter; the columns they filter on come first, the data last.
CREATE TABLE eventmill_log (
    position INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    type TEXT NOT NULL,
    key TEXT,
    sequence INTEGER,
    id TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    attributes BLOB NOT NULL,
    data BLOB NOT NULL
);

CREATE UNIQUE INDEX eventmill_log_key ON eventmill_log (topic, key, sequence) WHERE key IS NOT NULL;

CREATE TABLE eventmill_topics (
    topic TEXT PRIMARY KEY,
    partitions INTEGER NOT NULL
) WITHOUT ROWID;

-- The last position that trimming removed: positions are never used again. The largest row counts.
CREATE TABLE eventmill_trimmed (
    position INTEGER NOT NULL
);

-- Where each key's count stands whose messages were all trimmed.
CREATE TABLE eventmill_sequences (
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (topic, key)
) WITHOUT ROWID;

CREATE TABLE eventmill_groups (
    grp TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    types TEXT
) WITHOUT ROWID;

CREATE TABLE eventmill_members (
    grp TEXT NOT NULL,
    member TEXT NOT NULL,
    expires INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    PRIMARY KEY (grp, member)
) WITHOUT ROWID;

-- ahead: JSON list of positions done beyond `position`. token: grows with each change of hands.
-- abandoned: how many holders in a row vanished without having moved the cursor.
CREATE TABLE eventmill_cursors (
    grp TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    ahead TEXT NOT NULL,
    member TEXT,
    token INTEGER NOT NULL,
    abandoned INTEGER NOT NULL,
    PRIMARY KEY (grp, topic, partition)
) WITHOUT ROWID;

-- How far groups have come whose cursors live in another database.
CREATE TABLE eventmill_watermarks (
    grp TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (grp, topic, partition)
) WITHOUT ROWID;

-- state: due (waiting for its time), running (claimed by member), parked (behind another job of its
-- lane) or dead. A running job is claimed as long as its member lives; crashed: its last claim vanished.
CREATE TABLE eventmill_jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    lane TEXT,
    state TEXT NOT NULL,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    member TEXT,
    token INTEGER NOT NULL,
    crashed INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    topic TEXT,
    partition INTEGER,
    position INTEGER,
    errors BLOB NOT NULL,
    message BLOB NOT NULL
);

CREATE INDEX eventmill_jobs_due ON eventmill_jobs (queue, state, due);

CREATE INDEX eventmill_jobs_lane ON eventmill_jobs (queue, lane, id) WHERE lane IS NOT NULL;

CREATE TABLE eventmill_documents (
    key TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    data BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE eventmill_inbox (
    grp TEXT NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (grp, id, source)
) WITHOUT ROWID;
