-- Jobs have priorities, and names by which they are found. How often in a row a job's claims vanished is counted.
ALTER TABLE {schema}.eventmill_jobs
    ADD COLUMN priority integer NOT NULL DEFAULT 0,
    ADD COLUMN reference text COLLATE "C",
    ALTER COLUMN crashed TYPE integer USING crashed::integer;

-- The first due job of each priority is found at once, however many wait behind it or for their time.
DROP INDEX {schema}.eventmill_jobs_due;

CREATE INDEX eventmill_jobs_due ON {schema}.eventmill_jobs (queue, state, priority, due, id);

CREATE INDEX eventmill_jobs_reference ON {schema}.eventmill_jobs (reference) WHERE reference IS NOT NULL;

-- What is rare must not be looked for among all the others.
CREATE INDEX eventmill_jobs_crashed ON {schema}.eventmill_jobs (queue, due) WHERE crashed > 0;

CREATE INDEX eventmill_jobs_dead ON {schema}.eventmill_jobs (due) WHERE state = 'dead';

-- A member's jobs are those of its queue that are running.
DROP INDEX {schema}.eventmill_jobs_member;

DROP FUNCTION {schema}.eventmill_settle(
    bigint[], bigint[], text[], text[], bigint[], bytea[], boolean[], bigint
);

-- End claimed jobs, each while its member has claimed it under its token (EM001 says which are lost).
-- action: finish, retry (again when due, after so many tries), bury (dead; keeps its lane or leaves it), hold (only see
-- that it is held).
CREATE FUNCTION {schema}.eventmill_settle(
    jobs bigint[], tokens bigint[], members text[], actions text[], dues bigint[], errs bytea[], keeps boolean[],
    tries integer[], moment bigint
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
        lane = CASE WHEN n.keep THEN j.lane END, crashed = 0,
        attempts = n.tries
    FROM unnest(jobs, actions, dues, errs, keeps, tries) AS n (job, action, due, errors, keep, tries)
    WHERE j.id = n.job AND n.action IN ('retry', 'bury');
    DELETE FROM {schema}.eventmill_jobs AS j
    USING unnest(jobs, actions) AS n (job, action) WHERE j.id = n.job AND n.action = 'finish';
    IF queues IS NOT NULL THEN
        PERFORM {schema}.eventmill_go_on(queues, lanes, moment);
    END IF;
END
$body$;

DROP FUNCTION {schema}.eventmill_send(
    text[], text[], text[], bigint[], integer[], bigint[], text[], integer[], bigint[], bytea[], bytea[]
);

-- Store jobs: due, or parked where their lane is occupied.
CREATE FUNCTION {schema}.eventmill_send(
    queues text[], lanes text[], states text[], dues bigint[], attempts integer[], recorded bigint[],
    topics text[], partitions integer[], positions bigint[], errs bytea[], messages bytea[],
    priorities integer[], refs text[]
) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM {schema}.eventmill_lock_lanes(queues, lanes);
    INSERT INTO {schema}.eventmill_jobs
        (queue, lane, state, due, attempts, member, token, crashed, recorded_at, topic, partition, position, errors, message,
         priority, reference)
    SELECT n.queue, n.lane,
        CASE WHEN n.state <> 'dead' AND n.lane IS NOT NULL AND (
            row_number() OVER (PARTITION BY n.queue, n.lane ORDER BY n.number) > 1
            OR EXISTS (SELECT 1 FROM {schema}.eventmill_jobs AS j WHERE j.queue = n.queue AND j.lane = n.lane)
        ) THEN 'parked' ELSE n.state END,
        n.due, n.attempts, NULL, 0, 0, n.recorded, n.topic, n.partition, n.position, n.errors, n.message,
        n.priority, n.reference
    FROM unnest(queues, lanes, states, dues, attempts, recorded, topics, partitions, positions, errs, messages, priorities,
            refs)
        WITH ORDINALITY AS n (queue, lane, state, due, attempts, recorded, topic, partition, position, errors, message,
            priority, reference, number)
    ORDER BY n.number;
END
$body$;

-- Take from vanished members what they held, and from members whose lease lies so far ahead that the clock must
-- have gone back since. The members' lock is held.
CREATE OR REPLACE FUNCTION {schema}.eventmill_expire(moment bigint) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    gone record;
BEGIN
    FOR gone IN
        DELETE FROM {schema}.eventmill_members AS m WHERE m.expires < moment OR m.expires > moment + 2 * m.lease
        RETURNING m.grp, m.member
    LOOP
        UPDATE {schema}.eventmill_cursors AS c SET member = NULL, abandoned = c.abandoned + 1
        WHERE c.grp = gone.grp AND c.member = gone.member;
        UPDATE {schema}.eventmill_jobs AS j SET state = 'due', member = NULL, crashed = j.crashed + 1
        WHERE j.queue = gone.grp AND j.state = 'running' AND j.member = gone.member;
        UPDATE {schema}.eventmill_groups AS g SET generation = g.generation + 1 WHERE g.grp = gone.grp;
    END LOOP;
END
$body$;

-- Claimed jobs wait in lanes, each while its member has claimed it under its token (EM001 says which are lost).
CREATE FUNCTION {schema}.eventmill_hold(jobs bigint[], tokens bigint[], members text[], lanes text[], tries integer[])
RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    lost text;
BEGIN
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
    UPDATE {schema}.eventmill_jobs AS j
    SET state = 'parked', member = NULL, lane = n.lane, attempts = n.tries, crashed = 0
    FROM unnest(jobs, lanes, tries) AS n (job, lane, tries) WHERE j.id = n.job;
END
$body$;

-- The oldest job that is held in a lane leaves it; a lane that is named twice lets two go.
CREATE FUNCTION {schema}.eventmill_let_go(queues text[], lanes text[]) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    FOR number IN 1 .. cardinality(lanes) LOOP
        UPDATE {schema}.eventmill_jobs AS j SET state = 'due', lane = NULL
        WHERE j.id = (
            SELECT f.id FROM {schema}.eventmill_jobs AS f
            WHERE f.queue = queues[number] AND f.lane = lanes[number] AND f.state = 'parked' ORDER BY f.id LIMIT 1
        );
    END LOOP;
END
$body$;
