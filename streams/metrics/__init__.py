"""Metrics of one worker, for Prometheus.

    instruments   every metric: name, meaning, labels, buckets
    observed      what tasks, calls and requests report as it happens: counters and histograms
    indexes       numbers of rows by group, kept at each commit
    scraping      gauges, read when a server scrapes the worker

No metric has a label with the name of an order, a driver or a restaurant: there may be any number of them.
"""
