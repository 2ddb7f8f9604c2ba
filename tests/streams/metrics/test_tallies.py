"""Counters and histograms as Prometheus reads them."""

from prometheus_client import CollectorRegistry, generate_latest

from streams.metrics.tallies import Histogram, Tally


def text(*metrics: Tally | Histogram) -> list[str]:
    """Return the series of the metrics in the text format."""
    registry = CollectorRegistry()
    for metric in metrics:
        registry.register(metric)
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_a_counter_starts_at_zero_and_counts_by_labels() -> None:
    plain, labelled = Tally("a", "A.", ()), Tally("b", "B.", ("x", "y"))
    labelled.add("p", "q", count=0)
    labelled.add("p", 7, count=3)
    labelled.add("p", 7)
    assert text(plain, labelled) == ["a_total 0.0", 'b_total{x="p",y="q"} 0.0', 'b_total{x="p",y="7"} 4.0']


def test_a_bucket_includes_its_bound_and_the_smaller_ones() -> None:
    histogram = Histogram("a", "A.", (0.5, 2), ())
    for value in (0.5, 0.6, 2, 3):
        histogram.observe(value)
    assert text(histogram) == [
        'a_bucket{le="0.5"} 1.0',
        'a_bucket{le="2.0"} 3.0',
        'a_bucket{le="+Inf"} 4.0',
        "a_count 4.0",
        "a_sum 6.1",
    ]


def test_a_histogram_by_labels_starts_empty() -> None:
    histogram = Histogram("a", "A.", (1,), ("x",))
    assert text(histogram) == []
    histogram.start("p")
    histogram.observe(0.1, "q")
    assert 'a_count{x="p"} 0.0' in text(histogram)
    assert 'a_count{x="q"} 1.0' in text(histogram)
