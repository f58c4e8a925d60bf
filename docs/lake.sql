-- What each device did in the judged phase of every published run, and what it cost: the same text on DuckDB and on Spark.
--
-- It reads three views, which each engine makes of a lake (`hallmark publish RECORD --to LAKE --site SITE`).
--
-- DuckDB (for S3: INSTALL httpfs, and a secret with the store's keys):
--   CREATE VIEW steps   AS SELECT * FROM read_parquet('LAKE/record/*/*/*/*/steps.parquet', hive_partitioning = true);
--   CREATE VIEW windows AS SELECT * FROM read_json('LAKE/windows/*/*/*/*/windows.jsonl', hive_partitioning = true);
--   CREATE VIEW devices AS SELECT * FROM read_json('LAKE/devices/*/*/*/*/devices.jsonl', hive_partitioning = true);
--
-- Spark:
--   CREATE TEMPORARY VIEW steps   USING parquet OPTIONS (path 'LAKE/record/*/*/*/*/steps.parquet', basePath 'LAKE/record');
--   CREATE TEMPORARY VIEW windows USING json    OPTIONS (path 'LAKE/windows/*/*/*/*/windows.jsonl', basePath 'LAKE/windows');
--   CREATE TEMPORARY VIEW devices USING json    OPTIONS (path 'LAKE/devices/*/*/*/*/devices.jsonl', basePath 'LAKE/devices');
--
-- Figures are those of the verdict: steps, matmuls, audits and idle gap to the last digit; quantiles are exact here and
-- within 0.1 % in the verdict, whose memory is bounded. Times are in seconds, rates in FLOP/s.
WITH judged AS (
    SELECT site, run, node, segment, start_ns, end_ns FROM windows WHERE judged
),
timed AS (
    SELECT s.site, s.run, s.node, s.device, s.seq, s.start_ns, s.end_ns, s.gemms, s.audited, s.flop,
        (s.end_ns - least(s.due_ns, s.start_ns)) / 1e9 AS step_s,
        max(s.end_ns) OVER (
            PARTITION BY s.site, s.run, s.node, s.device ORDER BY s.seq
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS last_end_ns
    FROM steps s
    JOIN judged w ON s.site = w.site AND s.run = w.run AND s.node = w.node AND s.segment = w.segment
        AND s.end_ns > w.start_ns
)
SELECT t.site, t.run, t.node, d.rack, d.id AS device,
    count(*) AS steps,
    sum(t.gemms) AS matmuls,
    sum(t.audited) AS audited,
    sum(t.flop) / ((max(t.end_ns) - min(t.start_ns)) / 1e9) AS flop_per_s,
    sum(CASE WHEN t.start_ns > t.last_end_ns THEN t.start_ns - t.last_end_ns ELSE 0 END)
        / (max(t.end_ns) - min(t.start_ns)) AS idle_gap,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY t.step_s) AS step_p50_s,
    percentile_disc(0.99) WITHIN GROUP (ORDER BY t.step_s) AS step_p99_s
FROM timed t
JOIN devices d ON t.site = d.site AND t.run = d.run AND t.node = d.node AND t.device = d.device
GROUP BY t.site, t.run, t.node, d.rack, d.id
ORDER BY t.site, t.run, t.node, d.id
