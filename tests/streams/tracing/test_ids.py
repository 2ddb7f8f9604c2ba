"""Ids and headers of traces."""

import pytest

from streams.tracing.ids import SpanContext, context_of, root_of, span_id, step_span, trace_id, traceparent

ORDER = "my-shop:1001"


def test_ids_follow_from_order_and_cause() -> None:
    assert f"{trace_id(ORDER):032x}" == "377415f7f58768b96a26fbd24ca62756"
    assert trace_id(ORDER) != trace_id("my-shop:1002")
    assert span_id("a") != span_id("b")
    assert root_of(ORDER) == step_span(ORDER, 1) != step_span(ORDER, 2)


@pytest.mark.parametrize(("sampled", "flags"), [(True, "01"), (False, "00")])
def test_the_header_says_whether_the_order_is_sampled(sampled: bool, flags: str) -> None:
    header = traceparent(ORDER, root_of(ORDER), sampled=sampled)
    assert header.split("-")[3] == flags
    assert context_of(header) == SpanContext(trace_id(ORDER), root_of(ORDER))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        "garbage",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-+7ad6b7169203331-01",
        "\x1b00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ],
)
def test_a_header_that_breaks_the_standard_names_nothing(header: str) -> None:
    assert context_of(header) is None


def test_a_header_of_a_later_version_is_understood() -> None:
    header = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"
    assert context_of(header) == SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
