-- Streams are the log itself. A key's events are found by their number, which its row in eventmill_sequences gives out.
CREATE UNIQUE INDEX eventmill_log_key ON {schema}.eventmill_log (topic, key, sequence) WHERE key IS NOT NULL;

-- True where the id was the caller's own, so that the append may be repeated.
ALTER TABLE {schema}.eventmill_log ADD COLUMN repeatable boolean;

CREATE INDEX eventmill_log_repeatable ON {schema}.eventmill_log (topic, key, id) WHERE repeatable;

-- Where the events of each tag stand. A message's tags are also among its attributes.
CREATE TABLE {schema}.eventmill_tags (
    tag text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (tag, position)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

-- What those meet at who append events with a tag, and who rule such events out. Few enough for a server's lock table:
-- tags that share a lock wait for each other, and nothing worse.
CREATE FUNCTION {schema}.eventmill_tag_lock(tag text) RETURNS bigint LANGUAGE sql STABLE AS $body$
    SELECT (1835821169::bigint << 32)
         | ((hashtextextended(tag, '{schema}'::regnamespace::oid::bigint) & 4095) << 20)
         | ('{schema}'::regnamespace::oid::bigint & 1048575)
$body$;

-- Append messages as eventmill_append does, some of them under the version that their stream is expected at, and only if
-- the conditions on tags hold. Returns, for each message in order, its position and number; for each counted key, its
-- last number; and which of the appends (1 the first) were stored before, so that nothing was written for them.
--
-- owners: the append that a message is of, 0 for none. append_slots: the counted key of an append's stream (counted by 0
-- where nothing is written to it). befores: how many messages of the same key stand before it in this call. expecteds:
-- below 0 for any. closings: the document that would close the stream, NULL where that is no obstacle.
-- tag_names, tag_messages: each tag, and the message it is of, 1 the first. ruled: one tag of each query of the conditions.
--
-- The order of locks: tags, keys, then the append lock. A tag is locked shared by those who write it and alone by those
-- who rule it out; what is read after that is what was committed before, and stays so until the end of this transaction.
--
-- Refusals: EM004 for expected versions and closed streams, with all that is needed to say whose they are;
-- EM005 for conditions: their places, 0 the first, and the position of the latest event against each of their queries.
CREATE FUNCTION {schema}.eventmill_append_to(
    key_topics text[], key_names text[], key_counts bigint[],
    topics text[], partitions integer[], types text[], keys text[], slots integer[], backs integer[],
    ids text[], attributes text[], data bytea[], recorded_at bigint,
    owners integer[], append_slots integer[], befores integer[], expecteds bigint[], closings text[], repeatables boolean[],
    tag_names text[], tag_messages integer[], ruled text[], conditions jsonb,
    OUT positions bigint[], OUT sequences bigint[], OUT lasts bigint[], OUT repeats integer[]
) LANGUAGE plpgsql AS $body$
DECLARE
    refused json;
    closed json;
    known record;
    asked record;
    found bigint;
    bases bigint[];
    gone integer[];
    conflict boolean := false;
    new_positions bigint[];
    new_sequences bigint[];
    written integer := 0;
BEGIN
    repeats := '{}';
    IF cardinality(tag_names) + cardinality(ruled) > 0 THEN
        PERFORM CASE WHEN l.alone THEN pg_advisory_xact_lock(l.lock) ELSE pg_advisory_xact_lock_shared(l.lock) END
        FROM (
            SELECT t.lock, bool_or(t.alone) AS alone FROM (
                SELECT {schema}.eventmill_tag_lock(n.tag) AS lock, false AS alone FROM unnest(tag_names) AS n (tag)
                UNION ALL
                SELECT {schema}.eventmill_tag_lock(n.tag), true FROM unnest(ruled) AS n (tag)
            ) AS t GROUP BY t.lock ORDER BY t.lock
        ) AS l;
    END IF;
    IF conditions IS NOT NULL THEN
        -- One by one, so that the planner sees a look at an index each time, and nothing to compile.
        FOR asked IN
            SELECT c.number - 1 AS place, (c.value ->> 'after')::bigint AS after, q.value ->> 'tag' AS tag,
                   ARRAY(SELECT jsonb_array_elements_text(q.value -> 'others')) AS others,
                   ARRAY(SELECT jsonb_array_elements_text(q.value -> 'types')) AS types
            FROM jsonb_array_elements(conditions) WITH ORDINALITY AS c (value, number)
            CROSS JOIN LATERAL jsonb_array_elements(c.value -> 'queries') AS q (value)
        LOOP
            SELECT t.position INTO found FROM {schema}.eventmill_tags AS t
            WHERE t.tag = asked.tag AND t.position > asked.after
              AND NOT EXISTS (
                SELECT 1 FROM unnest(asked.others) AS o (tag)
                WHERE NOT EXISTS (SELECT 1 FROM {schema}.eventmill_tags AS u WHERE u.tag = o.tag AND u.position = t.position)
              )
              AND (cardinality(asked.types) = 0 OR EXISTS (
                SELECT 1 FROM {schema}.eventmill_log AS l WHERE l.position = t.position AND l.type = ANY (asked.types)
              ))
            ORDER BY t.position DESC LIMIT 1;
            IF found IS NOT NULL THEN
                refused := (coalesce(refused::jsonb, '[]') || jsonb_build_array(jsonb_build_array(asked.place, found)))::json;
            END IF;
        END LOOP;
        IF refused IS NOT NULL THEN
            RAISE EXCEPTION 'events with these tags were found' USING ERRCODE = 'EM005', DETAIL = refused::text;
        END IF;
    END IF;
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
    IF cardinality(append_slots) > 0 THEN
        SELECT json_object_agg(d.key, convert_from(d.data, 'UTF8')) INTO closed
        FROM {schema}.eventmill_documents AS d WHERE d.key = ANY (closings);
        conflict := closed IS NOT NULL;
        IF true = ANY (repeatables) THEN
            FOR known IN
                SELECT m.owner, array_agg(l.id ORDER BY l.sequence) AS ids, min(l.sequence) AS first, max(l.sequence) AS last,
                       json_agg(json_build_array(m.owner - 1, l.id, l.sequence, l.position) ORDER BY l.sequence) AS rows
                FROM unnest(owners, topics, keys, ids) AS m (owner, topic, key, id)
                JOIN {schema}.eventmill_log AS l ON l.topic = m.topic AND l.key = m.key AND l.id = m.id AND l.repeatable
                WHERE m.owner > 0 AND repeatables[m.owner]
                GROUP BY m.owner
            LOOP
                refused := (coalesce(refused::jsonb, '[]') || known.rows::jsonb)::json;
                IF known.ids = ARRAY(
                    SELECT m.id FROM unnest(owners, ids) WITH ORDINALITY AS m (owner, id, number)
                    WHERE m.owner = known.owner ORDER BY m.number
                ) AND known.last - known.first = cardinality(known.ids) - 1 THEN
                    repeats := repeats || known.owner;
                ELSE
                    conflict := true;
                END IF;
            END LOOP;
        END IF;
        conflict := conflict OR EXISTS (
            SELECT 1 FROM unnest(append_slots, befores, expecteds) WITH ORDINALITY AS a (slot, before, expected, number)
            WHERE a.expected >= 0 AND a.number <> ALL (repeats)
              AND lasts[a.slot] - key_counts[a.slot] + a.before - (
                SELECT count(*) FROM unnest(slots, owners) AS m (slot, owner)
                WHERE cardinality(repeats) > 0 AND m.slot = a.slot AND m.owner < a.number AND m.owner = ANY (repeats)
              ) <> a.expected
        );
        IF conflict THEN
            SELECT array_agg(b.last - b.number ORDER BY b.place) INTO bases
            FROM unnest(lasts, key_counts) WITH ORDINALITY AS b (last, number, place);
            RAISE EXCEPTION 'streams stand elsewhere' USING ERRCODE = 'EM004', DETAIL = json_build_object(
                'bases', bases, 'closed', coalesce(closed, '{}'), 'stored', coalesce(refused, '[]'))::text;
        END IF;
    END IF;
    IF cardinality(repeats) > 0 THEN
        -- Nothing is written for them: their streams are counted less, and so is what follows them.
        gone := array_fill(0, ARRAY[cardinality(key_names)]);
        FOR place IN REVERSE cardinality(ids) .. 1 LOOP
            IF owners[place] = ANY (repeats) THEN
                gone[slots[place]] := gone[slots[place]] + 1;
            ELSIF slots[place] IS NOT NULL THEN
                backs[place] := backs[place] - gone[slots[place]];
            END IF;
        END LOOP;
        UPDATE {schema}.eventmill_sequences AS s SET sequence = s.sequence - g.number
        FROM unnest(key_topics, key_names, gone) AS g (topic, key, number)
        WHERE g.number > 0 AND s.topic = g.topic AND s.key = g.key;
        FOR place IN 1 .. cardinality(key_names) LOOP
            lasts[place] := lasts[place] - gone[place];
        END LOOP;
    END IF;
    IF cardinality(ids) > 0 THEN
        PERFORM pg_advisory_xact_lock_shared({schema}.eventmill_append_lock());
        WITH stored AS (
            INSERT INTO {schema}.eventmill_log AS l
                (position, recorded_at, sequence, partition, topic, type, key, id, attributes, data, repeatable)
            SELECT nextval('{schema}.eventmill_positions'), recorded_at, lasts[m.slot] - m.back,
                   m.partition, m.topic, m.type, m.key, m.id, m.attributes, m.data,
                   CASE WHEN m.owner > 0 AND repeatables[m.owner] THEN true END
            FROM unnest(topics, partitions, types, keys, slots, backs, owners, ids, attributes, data)
                AS m (topic, partition, type, key, slot, back, owner, id, attributes, data)
            WHERE m.owner <> ALL (repeats)
            RETURNING l.position, l.sequence
        )
        SELECT array_agg(s.position ORDER BY s.position), array_agg(s.sequence ORDER BY s.position)
        INTO positions, sequences FROM stored AS s;
    END IF;
    IF cardinality(repeats) > 0 THEN
        FOR place IN 1 .. cardinality(ids) LOOP
            IF owners[place] = ANY (repeats) THEN
                SELECT l.position, l.sequence INTO known FROM {schema}.eventmill_log AS l
                WHERE l.topic = topics[place] AND l.key = keys[place] AND l.id = ids[place] AND l.repeatable;
                new_positions := new_positions || known.position;
                new_sequences := new_sequences || known.sequence;
            ELSE
                written := written + 1;
                new_positions := new_positions || positions[written];
                new_sequences := new_sequences || sequences[written];
            END IF;
        END LOOP;
        positions := new_positions;
        sequences := new_sequences;
    END IF;
    IF cardinality(tag_names) > 0 THEN
        INSERT INTO {schema}.eventmill_tags (tag, position)
        SELECT t.tag, positions[t.message] FROM unnest(tag_names, tag_messages) AS t (tag, message)
        WHERE owners[t.message] <> ALL (repeats);
    END IF;
END
$body$;
