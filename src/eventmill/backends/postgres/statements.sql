-- name: head
-- The last position ever given, committed or not.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {schema}.eventmill_positions

-- name: announce
-- Without a flush of the disk, since nothing is lost with it.
SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, '')

-- name: appending
-- Transactions that may still commit positions: those that hold the append lock. A prepared one has no process.
SELECT virtualtransaction, pid FROM pg_locks
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid = 1835821164 AND objid = '{schema}'::regnamespace::oid AND objsubid = 1 AND granted

-- name: stuck
-- Who has been appending for longer than some seconds.
SELECT l.pid, extract(epoch FROM clock_timestamp() - a.xact_start)::float8, a.state, left(a.query, 200), a.application_name
FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = 1835821164 AND l.objid = '{schema}'::regnamespace::oid AND l.objsubid = 1 AND l.granted
  AND coalesce(a.xact_start < clock_timestamp() - make_interval(secs => $1), true)

-- name: append
SELECT {schema}.eventmill_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)

-- name: append_to
SELECT positions, sequences, lasts, repeats FROM {schema}.eventmill_append_to(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)

-- name: advance
SELECT {schema}.eventmill_advance($1, $2, $3, $4, $5, $6, $7)

-- name: settle
SELECT {schema}.eventmill_settle($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: hold
SELECT {schema}.eventmill_hold($1, $2, $3, $4, $5)

-- name: let_go
SELECT {schema}.eventmill_let_go($1, $2)

-- name: lock_lanes
SELECT {schema}.eventmill_lock_lanes($1, $2)

-- name: send
SELECT {schema}.eventmill_send($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)

-- name: receive
SELECT {schema}.eventmill_receive($1, $2, $3, $4)

-- name: put
SELECT {schema}.eventmill_put($1, $2, $3)

-- name: lock_document
SELECT pg_advisory_xact_lock({schema}.eventmill_document_lock($1))

-- name: lock_definitions
SELECT pg_advisory_xact_lock(1835821168::bigint << 32)

-- name: document
SELECT version, data FROM {schema}.eventmill_documents WHERE key = $1

-- name: some_documents
SELECT key, version, data FROM {schema}.eventmill_documents WHERE key = ANY ($1)

-- name: documents
SELECT key, version, data FROM {schema}.eventmill_documents
WHERE key >= $1 AND key < $2 AND key > $3 ORDER BY key LIMIT $4

-- name: xid
SELECT pg_current_xact_id_if_assigned()::text

-- name: outcome
SELECT pg_xact_status($1::xid8)

-- name: terminate
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = $1 AND pid <> pg_backend_pid() AND application_name = $2

-- name: stored
-- Which of some messages, appended after a position, are there, and where.
SELECT topic, key, id, position, sequence FROM {schema}.eventmill_log WHERE position > $1 AND id = ANY ($2)

-- name: ping
SELECT 1

-- name: read
-- {condition} becomes placeholders for topics and types, and partition numbers.
SELECT position, topic, partition, type, key, sequence, id, recorded_at, attributes, data
FROM {schema}.eventmill_log WHERE position > $1 AND position <= $2 AND {condition} ORDER BY position LIMIT $3

-- name: tail
SELECT topic, partition, max(position) FROM {schema}.eventmill_log
WHERE position > $1 AND position <= $2 GROUP BY topic, partition

-- name: pending
SELECT count(*), min(recorded_at) FROM {schema}.eventmill_log WHERE position > $1 AND {condition}

-- name: ends
SELECT topic, partition, max(position) FROM {schema}.eventmill_log GROUP BY topic, partition

-- name: topics
SELECT topic, partitions FROM {schema}.eventmill_topics ORDER BY topic

-- name: declare
INSERT INTO {schema}.eventmill_topics (topic, partitions) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: received
SELECT id, source FROM {schema}.eventmill_inbox WHERE grp = $1 AND id = ANY ($2)

-- name: group_types
SELECT types FROM {schema}.eventmill_groups WHERE grp = $1

-- name: enroll_group
INSERT INTO {schema}.eventmill_groups AS g (grp, generation, types) VALUES ($1, 1, $2)
ON CONFLICT (grp) DO UPDATE SET types = excluded.types WHERE g.types IS DISTINCT FROM excluded.types

-- name: enroll_cursors
INSERT INTO {schema}.eventmill_cursors (grp, topic, partition, position, ahead, member, token, abandoned)
SELECT $1, n.topic, n.partition, 0, '[]', NULL, 0, 0 FROM unnest($2, $3) AS n (topic, partition)
ORDER BY n.topic COLLATE "C", n.partition ON CONFLICT DO NOTHING

-- name: generation
-- Another one also while somebody's lease has run out and nobody has taken over yet.
SELECT generation + 1000000000 * (
    SELECT count(*) FROM {schema}.eventmill_members AS m
    WHERE m.grp = g.grp AND (m.expires < $2 OR m.expires > $2 + 2 * m.lease)
) FROM {schema}.eventmill_groups AS g WHERE g.grp = $1

-- name: lock_members
SELECT pg_advisory_xact_lock({schema}.eventmill_members_lock())

-- name: expire
SELECT {schema}.eventmill_expire($1)

-- name: expired
SELECT 1 FROM {schema}.eventmill_members WHERE expires < $1 OR expires > $1 + 2 * lease LIMIT 1

-- name: bury
UPDATE {schema}.eventmill_members SET expires = 0 WHERE starts_with(member, $1)

-- name: bump
UPDATE {schema}.eventmill_groups SET generation = generation + 1 WHERE grp = $1

-- name: members
SELECT member FROM {schema}.eventmill_members WHERE grp = $1

-- name: join
INSERT INTO {schema}.eventmill_members (grp, member, expires, lease) VALUES ($1, $2, $3, $4)
ON CONFLICT (grp, member) DO UPDATE SET expires = excluded.expires, lease = excluded.lease

-- name: drop_member
DELETE FROM {schema}.eventmill_members WHERE grp = $1 AND member = $2

-- name: beat
UPDATE {schema}.eventmill_members SET expires = $1, lease = $2 WHERE member = ANY ($3) AND expires > 0

-- name: cursors
SELECT topic, partition, position, ahead, member, token, abandoned FROM {schema}.eventmill_cursors WHERE grp = $1

-- name: note_horizon
-- Before anything is removed: whoever finds it too early only asks in vain.
INSERT INTO {schema}.eventmill_horizons AS h (topic, position)
SELECT $1, max(position) FROM {schema}.eventmill_log WHERE topic = $1 AND position <= $2 HAVING count(*) > 0
ON CONFLICT (topic) DO UPDATE SET position = greatest(h.position, excluded.position)

-- name: horizons
SELECT topic, position FROM {schema}.eventmill_horizons WHERE topic = ANY ($1)

-- name: set_lock_timeout
SELECT set_config('lock_timeout', $1, true)

-- name: lock_cursors
SELECT topic, partition, position FROM {schema}.eventmill_cursors WHERE grp = $1
ORDER BY topic COLLATE "C", partition FOR NO KEY UPDATE

-- name: primary_key
-- Of a table that a transaction of the App would find under this name.
SELECT a.attname::text
FROM pg_index AS i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (number, place)
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indisprimary AND i.indrelid = coalesce(
    to_regclass(quote_ident($2) || '.' || quote_ident($1)), to_regclass(quote_ident($1)))
ORDER BY k.place

-- name: acquire
UPDATE {schema}.eventmill_cursors AS c SET member = $1, token = c.token + 1
FROM unnest($3, $4) AS n (topic, partition)
WHERE c.grp = $2 AND c.topic = n.topic AND c.partition = n.partition
RETURNING c.topic, c.partition, c.position, c.ahead, c.token, c.abandoned

-- name: release_some
UPDATE {schema}.eventmill_cursors AS c SET member = NULL, abandoned = 0
FROM unnest($3, $4) AS n (topic, partition)
WHERE c.grp = $2 AND c.member = $1 AND c.topic = n.topic AND c.partition = n.partition

-- name: release_cursors
UPDATE {schema}.eventmill_cursors SET member = NULL, abandoned = 0 WHERE grp = $1 AND member = $2

-- name: release_jobs
-- An interrupted attempt does not count.
UPDATE {schema}.eventmill_jobs SET state = 'due', member = NULL, attempts = greatest(0, attempts - 1)
WHERE queue = $1 AND state = 'running' AND member = $2

-- name: claim
-- A suspect, alone; without one, the first of each priority that are due.
WITH suspect AS MATERIALIZED (
    SELECT id FROM {schema}.eventmill_jobs
    WHERE queue = $2 AND state = 'due' AND due <= $3 AND crashed > 0 AND crashed >= $6
    ORDER BY due, id LIMIT 1 FOR UPDATE SKIP LOCKED
), chosen AS (
    SELECT id FROM suspect
    UNION ALL (
        SELECT f.id FROM unnest($5) AS l (level), LATERAL (
            SELECT id, due FROM {schema}.eventmill_jobs
            WHERE queue = $2 AND state = 'due' AND priority = l.level AND due <= $3 AND crashed < $6
            ORDER BY due, id LIMIT $4 FOR UPDATE SKIP LOCKED
        ) AS f
        WHERE NOT EXISTS (SELECT 1 FROM suspect)
        ORDER BY f.due - l.level::bigint * $7, f.id LIMIT $4
    )
)
UPDATE {schema}.eventmill_jobs AS j SET state = 'running', member = $1, token = j.token + 1, attempts = j.attempts + 1
FROM chosen WHERE j.id = chosen.id
RETURNING j.id, j.queue, j.lane, j.state, j.due, j.attempts, j.token, j.crashed, j.recorded_at, j.topic, j.partition,
    j.position, j.errors, j.message, j.priority, j.reference

-- name: take
UPDATE {schema}.eventmill_jobs AS j SET lane = CASE WHEN j.state = 'parked' THEN NULL ELSE j.lane END, state = 'running', member = $1, token = j.token + 1
WHERE j.id = (
    SELECT id FROM {schema}.eventmill_jobs WHERE reference = $2 AND state IN ('due', 'parked') FOR UPDATE SKIP LOCKED
)
RETURNING j.id, j.queue, j.lane, j.state, j.due, j.attempts, j.token, j.crashed, j.recorded_at, j.topic, j.partition,
    j.position, j.errors, j.message, j.priority, j.reference

-- name: find_job
SELECT id, queue, lane, state, due, attempts, token, crashed, recorded_at, topic, partition, position, errors, message,
    priority, reference
FROM {schema}.eventmill_jobs WHERE reference = $1

-- part: levels
-- The priorities on which jobs wait: from level to level in the index, past whatever waits on each.
WITH RECURSIVE levels (level) AS (
    (SELECT priority FROM {schema}.eventmill_jobs WHERE queue = $1 AND state = 'due' ORDER BY priority DESC LIMIT 1)
    UNION ALL
    SELECT n.priority FROM levels AS l, LATERAL (
        SELECT priority FROM {schema}.eventmill_jobs WHERE queue = $1 AND state = 'due' AND priority < l.level
        ORDER BY priority DESC LIMIT 1
    ) AS n
)

-- name: due
-- When the first of each level is due.
{levels}
SELECT level, f.due FROM levels, LATERAL (
    SELECT due FROM {schema}.eventmill_jobs WHERE queue = $1 AND state = 'due' AND priority = level
    ORDER BY due LIMIT 1
) AS f

-- name: overdue
{levels}
SELECT count(*), min(j.due) FROM levels JOIN {schema}.eventmill_jobs AS j
ON j.queue = $1 AND j.state = 'due' AND j.priority = level AND j.due <= $2

-- name: occupied
SELECT DISTINCT lane FROM {schema}.eventmill_jobs WHERE queue = $1 AND lane = ANY ($2)

-- name: any_job
SELECT 1 FROM {schema}.eventmill_jobs WHERE queue = $1 LIMIT 1

-- name: jobs
SELECT id, queue, lane, state, due, attempts, token, crashed, recorded_at, topic, partition, position, errors, message,
    priority, reference
FROM {schema}.eventmill_jobs
WHERE id > $1 AND ($2::text IS NULL OR queue = $2) AND ($3::text IS NULL OR state = $3) ORDER BY id LIMIT $4

-- name: dead_jobs
SELECT id, queue, lane FROM {schema}.eventmill_jobs WHERE id = ANY ($1) AND state = 'dead' ORDER BY id FOR UPDATE

-- name: dead_lanes
SELECT queue, lane FROM {schema}.eventmill_jobs WHERE id = ANY ($1) AND state = 'dead' AND lane IS NOT NULL

-- name: replay_jobs
UPDATE {schema}.eventmill_jobs SET state = 'due', due = $1, attempts = 0 WHERE id = ANY ($2)

-- name: drop_jobs
DELETE FROM {schema}.eventmill_jobs WHERE id = ANY ($1)

-- name: go_on
SELECT {schema}.eventmill_go_on($1, $2, $3)

-- name: job_counts
SELECT queue, state, count(*) FROM {schema}.eventmill_jobs GROUP BY queue, state

-- name: groups
SELECT grp, types FROM {schema}.eventmill_groups ORDER BY grp

-- name: all_cursors
SELECT grp, topic, partition, position, member FROM {schema}.eventmill_cursors

-- name: live_members
SELECT grp, member FROM {schema}.eventmill_members WHERE expires >= $1

-- name: forget
DELETE FROM {schema}.eventmill_groups WHERE grp = $1

-- name: forget_members
DELETE FROM {schema}.eventmill_members WHERE grp = $1

-- name: forget_cursors
DELETE FROM {schema}.eventmill_cursors WHERE grp = $1

-- name: forget_watermarks
DELETE FROM {schema}.eventmill_watermarks WHERE grp = $1

-- name: forget_jobs
DELETE FROM {schema}.eventmill_jobs WHERE queue = $1

-- name: forget_inbox
DELETE FROM {schema}.eventmill_inbox WHERE grp = $1

-- name: report
INSERT INTO {schema}.eventmill_watermarks AS w (grp, topic, partition, position)
SELECT $1, n.topic, n.partition, n.position FROM unnest($2, $3, $4) AS n (topic, partition, position)
ORDER BY n.topic COLLATE "C", n.partition
ON CONFLICT (grp, topic, partition) DO UPDATE SET position = excluded.position WHERE excluded.position > w.position

-- name: slowest
-- The group that is furthest behind in a topic.
SELECT grp, position FROM (
    SELECT grp, position FROM {schema}.eventmill_cursors WHERE topic = $1
    UNION ALL
    SELECT grp, position FROM {schema}.eventmill_watermarks WHERE topic = $1
) AS g ORDER BY position, grp LIMIT 1

-- name: trim_by_age
-- Where the messages recorded before a moment end.
SELECT coalesce(max(position), 0) FROM {schema}.eventmill_log WHERE topic = $1 AND recorded_at < $2

-- name: trim_by_bytes
-- The newest message that lies wholly beyond the bytes to keep.
SELECT coalesce(max(position), 0) FROM (
    SELECT position, sum(length(data) + octet_length(attributes)) OVER (ORDER BY position DESC) AS kept
    FROM {schema}.eventmill_log WHERE topic = $1
) AS l WHERE kept > $2

-- name: trim
-- The next messages to remove, in one short transaction.
WITH gone AS (
    DELETE FROM {schema}.eventmill_log WHERE position IN (
        SELECT position FROM {schema}.eventmill_log
        WHERE topic = $1 AND position > $2 AND position <= $3 ORDER BY position LIMIT $4
    ) RETURNING position, attributes
), untagged AS (
    DELETE FROM {schema}.eventmill_tags WHERE ctid = ANY (ARRAY(
        SELECT t.ctid FROM gone AS g
        CROSS JOIN LATERAL json_array_elements_text(g.attributes::json -> 'tags') AS n (tag)
        CROSS JOIN LATERAL (
            SELECT ctid FROM {schema}.eventmill_tags WHERE tag = n.tag AND position = g.position OFFSET 0
        ) AS t
        WHERE g.attributes LIKE '%"tags":%'
    ))
)
SELECT count(*), coalesce(max(position), 0) FROM gone

-- name: stream
SELECT position, topic, partition, type, key, sequence, id, recorded_at, attributes, data FROM {schema}.eventmill_log
WHERE topic = $1 AND key = $2 AND sequence > $3 AND sequence <= $4 ORDER BY sequence LIMIT $5

-- name: events
-- Only what a fold needs. The schema version is mostly 1, and then not written: JSON is parsed where it may be.
SELECT sequence, type,
    CASE WHEN position('"version":' IN attributes) > 0
        THEN coalesce((attributes::json ->> 'version')::integer, 1) ELSE 1 END,
    data, id
FROM {schema}.eventmill_log WHERE topic = $1 AND key = $2 AND sequence > $3 AND sequence <= $4 ORDER BY sequence LIMIT $5

-- name: stream_backward
SELECT position, topic, partition, type, key, sequence, id, recorded_at, attributes, data FROM {schema}.eventmill_log
WHERE topic = $1 AND key = $2 AND sequence > $3 AND sequence <= $4 ORDER BY sequence DESC LIMIT $5

-- name: version
SELECT sequence FROM {schema}.eventmill_sequences WHERE topic = $1 AND key = $2

-- name: streams
SELECT key, sequence FROM {schema}.eventmill_sequences
WHERE topic = $1 AND key > $2 AND sequence > 0 ORDER BY key LIMIT $3

-- name: read_all
-- The condition is on topics, types and tags.
SELECT l.position, l.topic, l.partition, l.type, l.key, l.sequence, l.id, l.recorded_at, l.attributes, l.data
FROM {schema}.eventmill_log AS l WHERE l.position > $1 AND l.position <= $2 AND {condition} ORDER BY l.position LIMIT $3

-- name: read_tagged
-- The first few of each query, by the tags' own order, then the first few of those.
SELECT l.position, l.topic, l.partition, l.type, l.key, l.sequence, l.id, l.recorded_at, l.attributes, l.data
FROM {schema}.eventmill_log AS l WHERE l.position IN ({condition}) ORDER BY l.position LIMIT $3

-- name: prune_inbox
DELETE FROM {schema}.eventmill_inbox WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {schema}.eventmill_inbox WHERE received_at < $1 LIMIT $2
)) RETURNING 1

-- name: old_dead
SELECT id FROM {schema}.eventmill_jobs WHERE state = 'dead' AND due < $1 LIMIT $2

-- name: server
SELECT current_setting('server_version'), current_setting('autovacuum')

-- name: prepared
SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8, owner::text
FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared

-- name: idle
SELECT pid, extract(epoch FROM clock_timestamp() - state_change)::float8, application_name, left(query, 200)
FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()
  AND state_change < clock_timestamp() - make_interval(secs => $1)

-- name: dead_rows
SELECT relname::text, n_dead_tup FROM pg_stat_user_tables
WHERE schemaname = $1 AND starts_with(relname, 'eventmill_') AND n_dead_tup > $2
  AND relname NOT IN ('eventmill_log', 'eventmill_inbox')
