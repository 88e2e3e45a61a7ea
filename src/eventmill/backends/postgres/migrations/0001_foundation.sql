-- Every table starts with eventmill_, because the user's own tables may live in the same schema.
-- Text compares by bytes (COLLATE "C"): the same order here, in Python and on every server, and the fastest index.

CREATE SEQUENCE {schema}.eventmill_positions AS bigint;

-- The log. Readers scan forward from a position and filter.
CREATE TABLE {schema}.eventmill_log (
    position bigint PRIMARY KEY,
    recorded_at bigint NOT NULL,
    sequence bigint,
    partition integer NOT NULL,
    topic text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    id text COLLATE "C" NOT NULL,
    attributes text NOT NULL,
    data bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

-- Moments grow with positions: a few bytes for each stretch of the table say where old messages end.
CREATE INDEX eventmill_log_recorded_at ON {schema}.eventmill_log USING brin (recorded_at) WITH (pages_per_range = 32);

CREATE TABLE {schema}.eventmill_topics (
    topic text COLLATE "C" PRIMARY KEY,
    partitions integer NOT NULL
);

-- Each key's count. Only `sequence` ever changes, which no index covers: updates stay within their page (HOT).
CREATE TABLE {schema}.eventmill_sequences (
    topic text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (topic, key)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE {schema}.eventmill_groups (
    grp text COLLATE "C" PRIMARY KEY,
    generation bigint NOT NULL,
    types text
) WITH (fillfactor = 50);

CREATE TABLE {schema}.eventmill_members (
    grp text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL,
    expires bigint NOT NULL,
    lease bigint NOT NULL,
    PRIMARY KEY (grp, member)
) WITH (fillfactor = 30, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- ahead: JSON list of positions done beyond `position`. token: grows with each change of hands.
-- abandoned: how many holders in a row vanished without having moved the cursor.
CREATE TABLE {schema}.eventmill_cursors (
    grp text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    position bigint NOT NULL,
    ahead text NOT NULL,
    member text COLLATE "C",
    token bigint NOT NULL,
    abandoned integer NOT NULL,
    PRIMARY KEY (grp, topic, partition)
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- How far groups have come whose cursors live in another database.
CREATE TABLE {schema}.eventmill_watermarks (
    grp text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (grp, topic, partition)
) WITH (fillfactor = 50);

-- state: due (waiting for its time), running (claimed by member), parked (behind another job of its
-- lane) or dead. A running job is claimed as long as its member lives; crashed: its last claim vanished.
CREATE TABLE {schema}.eventmill_jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text COLLATE "C" NOT NULL,
    lane text COLLATE "C",
    state text COLLATE "C" NOT NULL,
    due bigint NOT NULL,
    attempts integer NOT NULL,
    member text COLLATE "C",
    token bigint NOT NULL,
    crashed boolean NOT NULL,
    recorded_at bigint NOT NULL,
    topic text,
    partition integer,
    position bigint,
    errors bytea NOT NULL,
    message bytea NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX eventmill_jobs_due ON {schema}.eventmill_jobs (queue, state, due, id);

CREATE INDEX eventmill_jobs_lane ON {schema}.eventmill_jobs (queue, lane, id) WHERE lane IS NOT NULL;

CREATE INDEX eventmill_jobs_member ON {schema}.eventmill_jobs (member) WHERE member IS NOT NULL;

CREATE TABLE {schema}.eventmill_documents (
    key text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    data bytea NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE {schema}.eventmill_inbox (
    grp text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    received_at bigint NOT NULL,
    PRIMARY KEY (grp, id, source)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX eventmill_inbox_received_at ON {schema}.eventmill_inbox USING brin (received_at) WITH (pages_per_range = 32);

-- What whoever appends holds, shared, from before it draws a position until its transaction has ended:
-- a reader that saw the head of the sequence and then nobody holding this has all positions up to that head.
CREATE FUNCTION {schema}.eventmill_append_lock() RETURNS bigint LANGUAGE sql STABLE AS $body$
    SELECT (1835821164::bigint << 32) | '{schema}'::regnamespace::oid::bigint
$body$;

-- One at a time among those who change who is a member and who holds what.
CREATE FUNCTION {schema}.eventmill_members_lock() RETURNS bigint LANGUAGE sql STABLE AS $body$
    SELECT (1835821165::bigint << 32) | '{schema}'::regnamespace::oid::bigint
$body$;

-- One at a time among those who add to a lane or let it go on. Few enough for a server's lock table.
CREATE FUNCTION {schema}.eventmill_lane_lock(queue text, lane text) RETURNS bigint LANGUAGE sql STABLE AS $body$
    SELECT (1835821166::bigint << 32)
         | ((hashtextextended(queue || chr(31) || lane, '{schema}'::regnamespace::oid::bigint) & 1023) << 22)
         | ('{schema}'::regnamespace::oid::bigint & 4194303)
$body$;

CREATE FUNCTION {schema}.eventmill_document_lock(key text) RETURNS bigint LANGUAGE sql STABLE AS $body$
    SELECT hashtextextended('document ' || key, '{schema}'::regnamespace::oid::bigint)
$body$;

-- Append messages; returns their positions, in their order.
-- The keys' rows are locked first, in one order, and until the commit: so a key's order of sequences is its order of
-- positions and of commits. Then the shared lock, then the positions.
-- slots: which of the counted keys (ordered by topic and key) a message is of, 1 the first. backs: how many of the
-- same key follow it in this call.
CREATE FUNCTION {schema}.eventmill_append(
    key_topics text[], key_names text[], key_counts bigint[],
    topics text[], partitions integer[], types text[], keys text[], slots integer[], backs integer[],
    ids text[], attributes text[], data bytea[], recorded_at bigint
) RETURNS bigint[] LANGUAGE plpgsql AS $body$
DECLARE
    lasts bigint[];
    positions bigint[];
BEGIN
    IF cardinality(key_names) > 0 THEN
        WITH counted AS (
            INSERT INTO {schema}.eventmill_sequences AS s (topic, key, sequence)
            SELECT k.topic, k.name, k.number FROM unnest(key_topics, key_names, key_counts) AS k (topic, name, number)
            ORDER BY k.topic COLLATE "C", k.name COLLATE "C"
            ON CONFLICT (topic, key) DO UPDATE SET sequence = s.sequence + excluded.sequence
            RETURNING s.topic, s.key, s.sequence
        )
        SELECT array_agg(c.sequence ORDER BY c.topic COLLATE "C", c.key COLLATE "C") INTO lasts FROM counted AS c;
    END IF;
    PERFORM pg_advisory_xact_lock_shared({schema}.eventmill_append_lock());
    WITH stored AS (
        INSERT INTO {schema}.eventmill_log AS l
            (position, recorded_at, sequence, partition, topic, type, key, id, attributes, data)
        SELECT nextval('{schema}.eventmill_positions'), recorded_at, lasts[m.slot] - m.back, m.partition, m.topic,
               m.type, m.key, m.id, m.attributes, m.data
        FROM unnest(topics, partitions, types, keys, slots, backs, ids, attributes, data)
            AS m (topic, partition, type, key, slot, back, id, attributes, data)
        RETURNING l.position
    )
    SELECT array_agg(s.position ORDER BY s.position) INTO positions FROM stored AS s;
    RETURN positions;
END
$body$;

-- Move cursors on, each while its member holds it under its token (EM001 says which are lost).
-- Without a position, only see that it is held, and keep it so until the commit.
CREATE FUNCTION {schema}.eventmill_advance(
    groups text[], topics text[], partitions integer[], members text[], tokens bigint[], positions bigint[], aheads text[]
) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    moved bigint;
    lost text;
BEGIN
    UPDATE {schema}.eventmill_cursors AS c
    SET position = coalesce(n.position, c.position), ahead = coalesce(n.ahead, c.ahead),
        abandoned = CASE WHEN n.position IS NULL THEN c.abandoned ELSE 0 END
    FROM unnest(groups, topics, partitions, members, tokens, positions, aheads)
        AS n (grp, topic, partition, member, token, position, ahead)
    WHERE c.grp = n.grp AND c.topic = n.topic AND c.partition = n.partition
      AND c.member = n.member AND c.token = n.token;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(groups) THEN
        SELECT json_agg(n.number - 1) INTO lost
        FROM unnest(groups, topics, partitions, members, tokens) WITH ORDINALITY
            AS n (grp, topic, partition, member, token, number)
        WHERE NOT EXISTS (
            SELECT 1 FROM {schema}.eventmill_cursors AS c
            WHERE c.grp = n.grp AND c.topic = n.topic AND c.partition = n.partition
              AND c.member = n.member AND c.token = n.token
        );
        RAISE EXCEPTION 'partitions were taken over' USING ERRCODE = 'EM001', DETAIL = coalesce(lost, '[]');
    END IF;
END
$body$;

-- End claimed jobs, each while its member has claimed it under its token (EM001 says which are lost).
-- action: finish, retry (again when due), bury (dead; keeps its lane or leaves it), hold (only see that it is held).
CREATE FUNCTION {schema}.eventmill_settle(
    jobs bigint[], tokens bigint[], members text[], actions text[], dues bigint[], errs bytea[], keeps boolean[],
    moment bigint
) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    lost text;
    queues text[];
    lanes text[];
BEGIN
    PERFORM pg_advisory_xact_lock(l.lock) FROM (
        SELECT DISTINCT {schema}.eventmill_lane_lock(j.queue, j.lane) AS lock
        FROM {schema}.eventmill_jobs AS j
        WHERE j.id = ANY (jobs) AND j.lane IS NOT NULL ORDER BY 1
    ) AS l;
    PERFORM 1 FROM {schema}.eventmill_jobs AS j WHERE j.id = ANY (jobs) ORDER BY j.id FOR UPDATE;
    SELECT json_agg(n.number - 1) INTO lost
    FROM unnest(jobs, tokens, members) WITH ORDINALITY AS n (job, token, member, number)
    WHERE NOT EXISTS (
        SELECT 1 FROM {schema}.eventmill_jobs AS j
        WHERE j.id = n.job AND j.token = n.token AND j.member = n.member AND j.state = 'running'
    );
    IF lost IS NOT NULL THEN
        RAISE EXCEPTION 'jobs were taken over' USING ERRCODE = 'EM001', DETAIL = lost;
    END IF;
    SELECT array_agg(j.queue), array_agg(j.lane) INTO queues, lanes
    FROM {schema}.eventmill_jobs AS j, unnest(jobs, actions) AS n (job, action)
    WHERE j.id = n.job AND n.action IN ('finish', 'bury') AND j.lane IS NOT NULL;
    UPDATE {schema}.eventmill_jobs AS j
    SET state = CASE n.action WHEN 'retry' THEN 'due' ELSE 'dead' END, member = NULL, due = n.due, errors = n.errors,
        lane = CASE WHEN n.keep THEN j.lane END, crashed = false
    FROM unnest(jobs, actions, dues, errs, keeps) AS n (job, action, due, errors, keep)
    WHERE j.id = n.job AND n.action IN ('retry', 'bury');
    DELETE FROM {schema}.eventmill_jobs AS j
    USING unnest(jobs, actions) AS n (job, action) WHERE j.id = n.job AND n.action = 'finish';
    IF queues IS NOT NULL THEN
        PERFORM {schema}.eventmill_go_on(queues, lanes, moment);
    END IF;
END
$body$;

-- Lanes go on with their oldest parked job, unless an older one still holds them. The lanes are locked.
CREATE FUNCTION {schema}.eventmill_go_on(queues text[], lanes text[], moment bigint)
RETURNS void LANGUAGE sql AS $body$
    UPDATE {schema}.eventmill_jobs AS j SET state = 'due', due = moment
    FROM (SELECT DISTINCT * FROM unnest(queues, lanes) AS l (queue, lane)) AS l
    WHERE j.state = 'parked' AND j.id = (
        SELECT f.id FROM {schema}.eventmill_jobs AS f
        WHERE f.queue = l.queue AND f.lane = l.lane ORDER BY f.id LIMIT 1
    )
$body$;

-- Lock lanes, all in one order.
CREATE FUNCTION {schema}.eventmill_lock_lanes(queues text[], lanes text[]) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM pg_advisory_xact_lock(l.lock) FROM (
        SELECT DISTINCT {schema}.eventmill_lane_lock(n.queue, n.lane) AS lock
        FROM unnest(queues, lanes) AS n (queue, lane) WHERE n.lane IS NOT NULL ORDER BY 1
    ) AS l;
END
$body$;

-- Store jobs: due, or parked where their lane is occupied.
CREATE FUNCTION {schema}.eventmill_send(
    queues text[], lanes text[], states text[], dues bigint[], attempts integer[], recorded bigint[],
    topics text[], partitions integer[], positions bigint[], errs bytea[], messages bytea[]
) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM {schema}.eventmill_lock_lanes(queues, lanes);
    INSERT INTO {schema}.eventmill_jobs
        (queue, lane, state, due, attempts, member, token, crashed, recorded_at, topic, partition, position, errors, message)
    SELECT n.queue, n.lane,
        CASE WHEN n.state <> 'dead' AND n.lane IS NOT NULL AND (
            row_number() OVER (PARTITION BY n.queue, n.lane ORDER BY n.number) > 1
            OR EXISTS (SELECT 1 FROM {schema}.eventmill_jobs AS j WHERE j.queue = n.queue AND j.lane = n.lane)
        ) THEN 'parked' ELSE n.state END,
        n.due, n.attempts, NULL, 0, false, n.recorded, n.topic, n.partition, n.position, n.errors, n.message
    FROM unnest(queues, lanes, states, dues, attempts, recorded, topics, partitions, positions, errs, messages)
        WITH ORDINALITY AS n (queue, lane, state, due, attempts, recorded, topic, partition, position, errors, message, number)
    ORDER BY n.number;
END
$body$;

-- Note what groups have received (EM002 says which they had before, or somebody else has just committed).
CREATE FUNCTION {schema}.eventmill_receive(groups text[], ids text[], sources text[], moment bigint)
RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    new_groups text[];
    new_ids text[];
    new_sources text[];
    known text;
BEGIN
    WITH noted AS (
        INSERT INTO {schema}.eventmill_inbox AS i (grp, id, source, received_at)
        SELECT n.grp, n.id, n.source, moment FROM unnest(groups, ids, sources) AS n (grp, id, source)
        ORDER BY n.grp COLLATE "C", n.id COLLATE "C", n.source COLLATE "C"
        ON CONFLICT DO NOTHING
        RETURNING i.grp, i.id, i.source
    )
    SELECT array_agg(grp), array_agg(id), array_agg(source) INTO new_groups, new_ids, new_sources FROM noted;
    IF coalesce(cardinality(new_ids), 0) <> cardinality(ids) THEN
        SELECT json_agg(n.number - 1) INTO known
        FROM unnest(groups, ids, sources) WITH ORDINALITY AS n (grp, id, source, number)
        WHERE NOT EXISTS (
            SELECT 1 FROM unnest(new_groups, new_ids, new_sources) AS i (grp, id, source)
            WHERE i.grp = n.grp AND i.id = n.id AND i.source = n.source
        );
        RAISE EXCEPTION 'messages were handled before' USING ERRCODE = 'EM002', DETAIL = coalesce(known, '[]');
    END IF;
END
$body$;

-- Store a document, or delete it (value NULL). expected: the version that must stand, 0 for none, NULL for any
-- (EM003 says which one was found).
CREATE FUNCTION {schema}.eventmill_put(name text, value bytea, expected bigint) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    done bigint;
    actual bigint;
BEGIN
    IF expected = 0 THEN
        IF value IS NOT NULL THEN
            INSERT INTO {schema}.eventmill_documents (key, version, data) VALUES (name, 1, value) ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS done = ROW_COUNT;
        ELSE
            SELECT CASE WHEN count(*) = 0 THEN 1 ELSE 0 END INTO done FROM {schema}.eventmill_documents AS d WHERE d.key = name;
        END IF;
    ELSIF value IS NULL THEN
        DELETE FROM {schema}.eventmill_documents AS d WHERE d.key = name AND (expected IS NULL OR d.version = expected);
        GET DIAGNOSTICS done = ROW_COUNT;
        done := CASE WHEN expected IS NULL THEN 1 ELSE done END;
    ELSIF expected IS NULL THEN
        INSERT INTO {schema}.eventmill_documents AS d (key, version, data) VALUES (name, 1, value)
        ON CONFLICT (key) DO UPDATE SET version = d.version + 1, data = excluded.data;
        done := 1;
    ELSE
        UPDATE {schema}.eventmill_documents AS d SET version = d.version + 1, data = value
        WHERE d.key = name AND d.version = expected;
        GET DIAGNOSTICS done = ROW_COUNT;
    END IF;
    IF done = 0 THEN
        SELECT d.version INTO actual FROM {schema}.eventmill_documents AS d WHERE d.key = name;
        RAISE EXCEPTION 'another version was found' USING ERRCODE = 'EM003', DETAIL = coalesce(actual, 0)::text;
    END IF;
END
$body$;

-- Take from vanished members what they held, and from members whose lease lies so far ahead that the clock must
-- have gone back since. The members' lock is held.
CREATE FUNCTION {schema}.eventmill_expire(moment bigint) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    gone record;
BEGIN
    FOR gone IN
        DELETE FROM {schema}.eventmill_members AS m WHERE m.expires < moment OR m.expires > moment + 2 * m.lease
        RETURNING m.grp, m.member
    LOOP
        UPDATE {schema}.eventmill_cursors AS c SET member = NULL, abandoned = c.abandoned + 1
        WHERE c.grp = gone.grp AND c.member = gone.member;
        UPDATE {schema}.eventmill_jobs AS j SET state = 'due', member = NULL, crashed = true
        WHERE j.state = 'running' AND j.member = gone.member;
        UPDATE {schema}.eventmill_groups AS g SET generation = g.generation + 1 WHERE g.grp = gone.grp;
    END LOOP;
END
$body$;

-- What Debezium's outbox event router and other relays look for, should you switch to one of them.
CREATE VIEW {schema}.eventmill_outbox AS
SELECT id, topic AS aggregatetype, coalesce(key, id) AS aggregateid, type, data AS payload,
       to_timestamp(recorded_at / 1000.0) AS "timestamp", position
FROM {schema}.eventmill_log;
