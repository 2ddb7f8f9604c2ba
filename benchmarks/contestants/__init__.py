"""Contestants of `benchmarks.contest`: the engine, stock Faust, and a bare loop without Faust.

All do the same work for each record of `<run>-in`: decode its JSON, add one to the count of its key in a changelogged
RocksDB table, and emit one record under another key to `<run>-out`. Each is a program that ends after `BENCH_RECORDS`
records, and writes its times to the file `BENCH_RESULT`.
"""
