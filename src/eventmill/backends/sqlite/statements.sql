-- name: head
-- The last position ever given.
SELECT max(coalesce((SELECT max(position) FROM eventmill_log), 0),
           coalesce((SELECT max(position) FROM eventmill_trimmed), 0))

-- name: append
-- A key's count goes on from its last message, or from where trimming has noted it; ?10 is the number where it is known.
INSERT INTO eventmill_log
    (position, topic, partition, type, key, id, recorded_at, attributes, data, sequence, repeatable)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, CASE WHEN ?10 IS NOT NULL THEN ?10 WHEN ?5 IS NOT NULL THEN 1 + coalesce(
    (SELECT max(sequence) FROM eventmill_log WHERE topic = ?2 AND key = ?5),
    (SELECT sequence FROM eventmill_sequences WHERE topic = ?2 AND key = ?5),
    0) END, ?11)

-- name: tag
INSERT INTO eventmill_tags (tag, position) VALUES (?, ?)

-- name: version
SELECT coalesce(
    (SELECT max(sequence) FROM eventmill_log WHERE topic = ?1 AND key = ?2),
    (SELECT sequence FROM eventmill_sequences WHERE topic = ?1 AND key = ?2),
    0)

-- name: repeated
SELECT id, sequence, position FROM eventmill_log
WHERE topic = ? AND key = ? AND id IN (SELECT value FROM json_each(?)) AND repeatable IS NOT NULL ORDER BY sequence

-- name: latest_tagged
-- The condition is on the tags and types of a query.
SELECT t.position FROM eventmill_tags AS t JOIN eventmill_log AS l ON l.position = t.position
WHERE {condition} AND t.position > ? ORDER BY t.position DESC LIMIT 1

-- name: stream
SELECT position, topic, partition, type, key, sequence, id, recorded_at, attributes, data FROM eventmill_log
WHERE topic = ? AND key = ? AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?

-- name: events
-- Only what a fold needs. The schema version is mostly 1, and then not written: JSON is parsed where it may be.
SELECT sequence, type,
    CASE WHEN instr(attributes, CAST('"version":' AS BLOB))
        THEN coalesce(json_extract(CAST(attributes AS TEXT), '$.version'), 1) ELSE 1 END,
    data, id
FROM eventmill_log WHERE topic = ? AND key = ? AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?

-- name: stream_backward
SELECT position, topic, partition, type, key, sequence, id, recorded_at, attributes, data FROM eventmill_log
WHERE topic = ? AND key = ? AND sequence > ? AND sequence <= ? ORDER BY sequence DESC LIMIT ?

-- name: read_all
-- The condition is on topics, types and tags.
SELECT l.position, l.topic, l.partition, l.type, l.key, l.sequence, l.id, l.recorded_at, l.attributes, l.data
FROM eventmill_log AS l WHERE {condition} AND l.position > ? AND l.position <= ? ORDER BY l.position LIMIT ?

-- name: tagged
-- The first of one query, by the tags' own order.
SELECT position FROM (
    SELECT t.position FROM eventmill_tags AS t JOIN eventmill_log AS l ON l.position = t.position
    WHERE {condition} ORDER BY t.position LIMIT {limit})

-- name: streams
-- From one key to the next, without a look at what lies between.
WITH RECURSIVE keys (key) AS (
    SELECT min(key) FROM (
        SELECT min(key) AS key FROM eventmill_log WHERE topic = ?1 AND key > ?2
        UNION ALL SELECT min(key) FROM eventmill_sequences WHERE topic = ?1 AND key > ?2)
    UNION ALL
    SELECT (SELECT min(key) FROM (
        SELECT min(key) AS key FROM eventmill_log WHERE topic = ?1 AND key > keys.key
        UNION ALL SELECT min(key) FROM eventmill_sequences WHERE topic = ?1 AND key > keys.key))
    FROM keys WHERE keys.key IS NOT NULL
)
SELECT key, coalesce(
    (SELECT max(sequence) FROM eventmill_log AS l WHERE l.topic = ?1 AND l.key = keys.key),
    (SELECT sequence FROM eventmill_sequences AS s WHERE s.topic = ?1 AND s.key = keys.key))
FROM keys WHERE key IS NOT NULL LIMIT ?3

-- name: tail
SELECT topic, partition, max(position) FROM eventmill_log
WHERE position > ? AND position <= ? GROUP BY topic, partition

-- name: read
-- {condition} becomes placeholders for topics and types, and partition numbers.
SELECT position, topic, partition, type, key, sequence, id, recorded_at, attributes, data
FROM eventmill_log WHERE position > ? AND position <= ? AND {condition} ORDER BY position LIMIT ?

-- name: pending
SELECT count(*), min(recorded_at) FROM eventmill_log WHERE position > ? AND {condition}

-- name: partitions
SELECT partitions FROM eventmill_topics WHERE topic = ?

-- name: topics
SELECT topic, partitions FROM eventmill_topics ORDER BY topic

-- name: declare
INSERT INTO eventmill_topics (topic, partitions) VALUES (?, ?) ON CONFLICT DO NOTHING

-- name: ends
SELECT topic, partition, max(position) FROM eventmill_log GROUP BY topic, partition

-- name: held
-- What a member holds, as the write lock sees it.
SELECT topic, partition, token FROM eventmill_cursors WHERE grp = ? AND member = ?

-- name: advance
UPDATE eventmill_cursors SET position = ?, ahead = ?, abandoned = 0 WHERE grp = ? AND topic = ? AND partition = ?

-- name: inbox
INSERT INTO eventmill_inbox (grp, id, source, received_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: received
SELECT id, source FROM eventmill_inbox WHERE grp = ?1 AND id IN (SELECT value FROM json_each(?2))

-- name: document
SELECT version, data FROM eventmill_documents WHERE key = ?

-- name: primary_key
SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk

-- name: some_documents
SELECT d.key, d.version, d.data FROM json_each(?) AS k CROSS JOIN eventmill_documents AS d ON d.key = k.value

-- name: insert_document
INSERT INTO eventmill_documents (key, version, data) VALUES (?, 1, ?) ON CONFLICT DO NOTHING

-- name: update_document
UPDATE eventmill_documents SET version = version + 1, data = ? WHERE key = ? AND version = ?

-- name: documents
SELECT key, version, data FROM eventmill_documents
WHERE key >= ?1 AND key < ?2 AND key > ?3 ORDER BY key LIMIT ?4

-- name: put
INSERT INTO eventmill_documents (key, version, data) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET version = excluded.version, data = excluded.data

-- name: delete_document
DELETE FROM eventmill_documents WHERE key = ?

-- name: enroll_group
INSERT INTO eventmill_groups (grp, generation, types) VALUES (?1, 1, ?2)
ON CONFLICT (grp) DO UPDATE SET types = excluded.types WHERE types IS NOT excluded.types

-- name: enroll_cursor
INSERT INTO eventmill_cursors (grp, topic, partition, position, ahead, member, token, abandoned)
VALUES (?, ?, ?, 0, '[]', NULL, 0, 0) ON CONFLICT DO NOTHING

-- name: generation
-- Another one also while somebody's lease has run out and nobody has taken over yet.
SELECT generation + 1000000000 * (
    SELECT count(*) FROM eventmill_members AS m WHERE m.grp = g.grp AND (m.expires < ?2 OR m.expires > ?2 + 2 * m.lease)
) FROM eventmill_groups AS g WHERE g.grp = ?1

-- name: bump
UPDATE eventmill_groups SET generation = generation + 1 WHERE grp = ?

-- name: expired
-- Members whose lease is over, or lies so far ahead that the clock must have gone back since.
SELECT grp, member FROM eventmill_members WHERE expires < ?1 OR expires > ?1 + 2 * lease

-- name: bury
UPDATE eventmill_members SET expires = 0 WHERE substr(member, 1, length(?1)) = ?1

-- name: drop_member
DELETE FROM eventmill_members WHERE grp = ? AND member = ?

-- name: abandon_cursors
UPDATE eventmill_cursors SET member = NULL, abandoned = abandoned + 1 WHERE grp = ? AND member = ?

-- name: abandon_jobs
UPDATE eventmill_jobs SET state = 'due', member = NULL, crashed = crashed + 1
WHERE queue = ? AND state = 'running' AND member = ?

-- name: members
SELECT member FROM eventmill_members WHERE grp = ?

-- name: join
INSERT INTO eventmill_members (grp, member, expires, lease) VALUES (?, ?, ?, ?)
ON CONFLICT (grp, member) DO UPDATE SET expires = excluded.expires, lease = excluded.lease

-- name: beat
UPDATE eventmill_members SET expires = ?, lease = ? WHERE member IN (SELECT value FROM json_each(?)) AND expires > 0

-- name: cursors
SELECT topic, partition, position, ahead, member, token, abandoned FROM eventmill_cursors WHERE grp = ?

-- name: acquire
UPDATE eventmill_cursors SET member = ?, token = token + 1
WHERE grp = ? AND topic = ? AND partition = ?

-- name: release_cursor
UPDATE eventmill_cursors SET member = NULL, abandoned = 0
WHERE grp = ? AND topic = ? AND partition = ? AND member = ?

-- name: release_cursors
UPDATE eventmill_cursors SET member = NULL, abandoned = 0 WHERE grp = ? AND member = ?

-- name: release_jobs
-- An interrupted attempt does not count.
UPDATE eventmill_jobs SET state = 'due', member = NULL, attempts = max(0, attempts - 1)
WHERE queue = ? AND state = 'running' AND member = ?

-- name: lane_busy
SELECT 1 FROM eventmill_jobs WHERE queue = ? AND lane = ? LIMIT 1

-- name: send
INSERT INTO eventmill_jobs
    (queue, lane, state, due, attempts, member, token, crashed, recorded_at, topic, partition, position, errors, message,
     priority, reference)
VALUES (?, ?, ?, ?, ?, NULL, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: claimable_crashed
SELECT id FROM eventmill_jobs WHERE queue = ? AND state = 'due' AND due <= ? AND crashed > 0 AND crashed >= ?
ORDER BY due, id LIMIT 1

-- name: claim
UPDATE eventmill_jobs SET state = 'running', member = ?1, token = token + 1, attempts = attempts + 1
WHERE id IN (
    SELECT id FROM eventmill_jobs WHERE queue = ?2 AND state = 'due' AND priority = ?5 AND due <= ?3
    ORDER BY due, id LIMIT ?4
)
RETURNING id, queue, lane, state, due, attempts, token, crashed, recorded_at, topic, partition, position, errors, message, priority, reference

-- name: claim_some
UPDATE eventmill_jobs SET lane = CASE WHEN state = 'parked' THEN NULL ELSE lane END, state = 'running', member = ?1, token = token + 1, attempts = attempts + ?2
WHERE id IN (SELECT value FROM json_each(?3))
RETURNING id, queue, lane, state, due, attempts, token, crashed, recorded_at, topic, partition, position, errors, message, priority, reference

-- part: levels
-- The priorities on which jobs wait: from level to level in the index, past whatever waits on each.
WITH RECURSIVE levels (level) AS (
    SELECT max(priority) FROM eventmill_jobs WHERE queue = ?1 AND state = 'due'
    UNION ALL
    SELECT (SELECT max(priority) FROM eventmill_jobs WHERE queue = ?1 AND state = 'due' AND priority < level)
    FROM levels WHERE level IS NOT NULL
)

-- name: priorities
{levels}
SELECT level FROM levels WHERE level IS NOT NULL

-- name: claimable
SELECT due, id FROM eventmill_jobs WHERE queue = ?1 AND state = 'due' AND priority = ?2 AND due <= ?3
ORDER BY due, id LIMIT ?4

-- name: takeable
SELECT id, queue FROM eventmill_jobs WHERE reference = ? AND state IN ('due', 'parked')

-- name: find_job
SELECT id, queue, lane, state, due, attempts, token, crashed, recorded_at, topic, partition, position, errors, message, priority, reference
FROM eventmill_jobs WHERE reference = ?

-- name: next_due
{levels}
SELECT min((SELECT min(due) FROM eventmill_jobs WHERE queue = ?1 AND state = 'due' AND priority = level)) FROM levels

-- name: overdue
{levels}
SELECT count(*), min(j.due) FROM levels CROSS JOIN eventmill_jobs AS j
ON j.queue = ?1 AND j.state = 'due' AND j.priority = level AND j.due <= ?2

-- name: claimed
SELECT 1 FROM eventmill_jobs WHERE id = ?1 AND token = ?2 AND (?3 IS NULL OR member = ?3) AND state = 'running'

-- name: claimed_of
-- Which of some jobs a member has claimed, under which tokens.
SELECT id, token FROM eventmill_jobs
WHERE id IN (SELECT value FROM json_each(?2)) AND member = ?1 AND state = 'running'

-- name: finish_job
DELETE FROM eventmill_jobs WHERE id = ?

-- name: retry_job
UPDATE eventmill_jobs SET state = 'due', member = NULL, due = ?, errors = ?, attempts = ?, crashed = 0 WHERE id = ?

-- name: bury_job
-- Without a lane, it holds nothing up.
UPDATE eventmill_jobs SET state = 'dead', member = NULL, errors = ?, due = ?, lane = ?, crashed = 0 WHERE id = ?

-- name: hold_job
UPDATE eventmill_jobs SET state = 'parked', member = NULL, lane = ?, attempts = ?, crashed = 0 WHERE id = ?

-- name: let_go
UPDATE eventmill_jobs SET state = 'due', lane = NULL
WHERE id = (SELECT min(id) FROM eventmill_jobs WHERE queue = ? AND lane = ? AND state = 'parked')

-- name: lane
SELECT lane FROM eventmill_jobs WHERE id = ?

-- name: next_of_lane
-- The lane goes on with its oldest parked job, unless an older one still holds it.
UPDATE eventmill_jobs SET state = 'due', due = ?3
WHERE state = 'parked' AND id = (SELECT min(id) FROM eventmill_jobs WHERE queue = ?1 AND lane = ?2)

-- name: occupied
SELECT DISTINCT lane FROM eventmill_jobs WHERE queue = ?1 AND lane IN (SELECT value FROM json_each(?2))

-- name: any_job
SELECT 1 FROM eventmill_jobs WHERE queue = ? LIMIT 1

-- name: jobs
SELECT id, queue, lane, state, due, attempts, token, crashed, recorded_at, topic, partition, position, errors, message, priority, reference
FROM eventmill_jobs
WHERE id > ?1 AND (?2 IS NULL OR queue = ?2) AND (?3 IS NULL OR state = ?3) ORDER BY id LIMIT ?4

-- name: dead_job
SELECT queue, lane FROM eventmill_jobs WHERE id = ? AND state = 'dead'

-- name: replay_job
UPDATE eventmill_jobs SET state = 'due', due = ?, attempts = 0 WHERE id = ?

-- name: job_counts
SELECT queue, state, count(*) FROM eventmill_jobs GROUP BY queue, state

-- name: groups
SELECT grp, types FROM eventmill_groups ORDER BY grp

-- name: all_cursors
SELECT grp, topic, partition, position, member FROM eventmill_cursors

-- name: live_members
SELECT grp, member FROM eventmill_members WHERE expires >= ?

-- name: forget
DELETE FROM eventmill_groups WHERE grp = ?

-- name: forget_members
DELETE FROM eventmill_members WHERE grp = ?

-- name: forget_cursors
DELETE FROM eventmill_cursors WHERE grp = ?

-- name: forget_watermarks
DELETE FROM eventmill_watermarks WHERE grp = ?

-- name: forget_jobs
DELETE FROM eventmill_jobs WHERE queue = ?

-- name: forget_inbox
DELETE FROM eventmill_inbox WHERE grp = ?

-- name: report
INSERT INTO eventmill_watermarks (grp, topic, partition, position) VALUES (?, ?, ?, ?)
ON CONFLICT (grp, topic, partition) DO UPDATE SET position = excluded.position WHERE excluded.position > position

-- name: slowest
-- The group that is furthest behind in a topic.
SELECT grp, position FROM (
    SELECT grp, position FROM eventmill_cursors WHERE topic = ?1
    UNION ALL
    SELECT grp, position FROM eventmill_watermarks WHERE topic = ?1
) ORDER BY position, grp LIMIT 1

-- name: trim_by_age
-- Where the messages recorded before a moment end.
SELECT max(position) FROM eventmill_log WHERE topic = ?1 AND recorded_at < ?2 AND position <= ?3

-- name: trim_by_bytes
-- The newest message that lies wholly beyond the bytes to keep.
SELECT max(position) FROM (
    SELECT position, sum(length(data) + length(attributes)) OVER (ORDER BY position DESC) AS kept
    FROM eventmill_log WHERE topic = ?1
) WHERE kept > ?2

-- name: trim_batch
-- Positions of the next messages to remove.
SELECT position FROM eventmill_log WHERE topic = ? AND position <= ? ORDER BY position LIMIT ?

-- name: note_sequences
INSERT INTO eventmill_sequences (topic, key, sequence)
SELECT topic, key, max(sequence) FROM eventmill_log
WHERE topic = ?1 AND position BETWEEN ?2 AND ?3 AND key IS NOT NULL GROUP BY topic, key
ON CONFLICT (topic, key) DO UPDATE SET sequence = max(sequence, excluded.sequence)

-- name: trim_tags
DELETE FROM eventmill_tags WHERE (tag, position) IN (
    SELECT t.value, l.position FROM eventmill_log AS l, json_each(CAST(l.attributes AS TEXT), '$.tags') AS t
    WHERE l.topic = ?1 AND l.position BETWEEN ?2 AND ?3)

-- name: note_trimmed
INSERT INTO eventmill_trimmed (position) VALUES (?)

-- name: forget_trimmed
DELETE FROM eventmill_trimmed WHERE position < ?

-- name: note_horizon
INSERT INTO eventmill_horizons (topic, position) VALUES (?, ?)
ON CONFLICT (topic) DO UPDATE SET position = max(position, excluded.position)

-- name: horizons
SELECT topic, position FROM eventmill_horizons WHERE topic IN (SELECT value FROM json_each(?))

-- name: trim
DELETE FROM eventmill_log WHERE topic = ? AND position BETWEEN ? AND ?

-- name: prune_inbox
DELETE FROM eventmill_inbox WHERE (grp, id, source) IN
    (SELECT grp, id, source FROM eventmill_inbox WHERE received_at < ? LIMIT ?)

-- name: old_dead
SELECT id FROM eventmill_jobs WHERE state = 'dead' AND due < ? LIMIT ?
