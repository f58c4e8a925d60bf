#!/usr/bin/env python3
"""How long DuckDB takes for the quantiles of every series of a record: quantiles.py RECORD

The peer of `hallmark judge` on the same files: median, 95th and 99th percentile of each column of each telemetry table,
exact, on all cores. It prints seconds of wall clock and of processor time. DuckDB is where `engines.py install` puts it.
"""

import sys
import time
from collections import defaultdict
from pathlib import Path

import duckdb


def main() -> None:
    record = Path(sys.argv[1])
    alike = defaultdict(list)
    for file in sorted(record.glob("telemetry-*.parquet")):
        described = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{file}')").fetchall()
        alike[tuple(column[0] for column in described)].append(str(file))
    wall, busy, cells = time.monotonic(), time.process_time(), 0
    for columns, files in alike.items():
        values = [c for c in columns if c != "at_ns"]
        each = ", ".join(f'quantile_disc("{c}", [0.5, 0.95, 0.99])' for c in values)
        query = f"SELECT filename, count(*), {each} FROM read_parquet({files!r}, filename = true) GROUP BY filename"
        rows = duckdb.sql(query).fetchall()
        cells += sum(row[1] for row in rows) * len(values)
    wall, busy = time.monotonic() - wall, time.process_time() - busy
    print(f"{cells / 1e6:.0f} million samples: {wall:.2f} s, processor {busy:.2f} s")


main()
