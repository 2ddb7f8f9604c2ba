"""The journal of an order as a tree: an entry stands below the one from which it follows."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.text import Text
from rich.tree import Tree

from streams.cli.output import counted, duration, seconds_until
from topics.text import plain

ETA_CHANGES = ("EtaChanged", "DeliveryEtaChanged")
"""Events that only move the ETA; one a second while a driver is on the way."""
MAX_DEPTH = 10
"""Levels of the tree. Deeper entries stand beside the last level, so that their texts have room at 80 columns."""
MAX_ENTRIES = 200
"""Newest entries that are shown, unless every entry is asked for."""
MIN_GAP_S = 1.0
"""Shorter times between an entry and its cause are not shown."""


class _Node:
    """A node of the tree: the entries of one transaction."""

    def __init__(self, entry: dict[str, Any], tree: Tree, above: "_Node | None") -> None:
        self.entry = entry
        self.tree = tree
        self.above = above
        self.depth: int = 0 if above is None else above.depth + 1


def journal_tree(entries: Sequence[dict[str, Any]], calls: Iterable[dict[str, Any]], *, every: bool) -> Tree:
    """Return the tree of a journal, with the open calls below the entries that asked for them.

    Without ``every``, changes of the ETA and all but the newest entries are left out, and counted.
    """
    shown = list(entries) if every else [entry for entry in entries if not moves_eta(entry)][-MAX_ENTRIES:]
    root = Tree(_title(len(entries) - len(shown)), guide_style="dim")
    nodes: dict[int, _Node] = {}
    for entry in shown:
        cause = nodes.get(entry["cause"] or 0)
        if cause is not None and _is_one_step(cause.entry, entry):
            nodes[entry["seq"]] = cause
            assert isinstance(cause.tree.label, Text)
            cause.tree.label.append("\n").append_text(_line(entry))
            continue
        while cause is not None and cause.depth >= MAX_DEPTH - 1:
            cause = cause.above
        above = root if cause is None else cause.tree
        nodes[entry["seq"]] = _Node(entry, above.add(_head(entry, cause)), cause)
    for call in calls:
        asked = nodes.get(call["cause"] or 0)
        (root if asked is None else asked.tree).add(_call(call))
    return root


def _title(left_out: int) -> Text:
    title = Text("journal", "italic")
    return title.append(f" ({counted(left_out, 'entry', 'entries')} left out: --all)") if left_out else title


def moves_eta(entry: dict[str, Any]) -> bool:
    """Return whether an entry only moves the ETA."""
    return entry["event"] in ETA_CHANGES and entry.get("outcome", "APPLIED") == "APPLIED"


def _is_one_step(cause: dict[str, Any], entry: dict[str, Any]) -> bool:
    return (cause["event_id"], cause["at"]) == (entry["event_id"], entry["at"])


def _head(entry: dict[str, Any], cause: _Node | None) -> Text:
    """Return the first line of a node, with its time and the time since its cause."""
    at = datetime.fromisoformat(entry["at"])
    line = Text(at.astimezone().strftime("%Y-%m-%d %H:%M:%S " if cause is None else "%H:%M:%S "), "dim")
    gap_s = 0.0 if cause is None else (at - datetime.fromisoformat(cause.entry["at"])).total_seconds()
    if gap_s >= MIN_GAP_S:
        line.append(f"+{duration(gap_s)}  ", "dim")
    return line.append_text(_line(entry))


def _line(entry: dict[str, Any]) -> Text:
    before, after = entry.get("before", ""), entry.get("after", "")
    stage = after if after == before else " → ".join(filter(None, (before, after)))
    line = Text.assemble((entry["event"], "bold"), f" {entry['machine']} {plain(stage)}".rstrip())
    outcome, reason = entry.get("outcome", "APPLIED"), entry.get("reason", "")
    if outcome != "APPLIED":
        line.append(f"  {outcome}", "bold red")
    if reason:
        line.append(f": {plain(reason)}" if outcome != "APPLIED" else f"  {plain(reason)}")
    asked = [emitted for emitted in entry.get("emitted", ()) if "/update/" not in emitted]
    return line.append(f"  asks {plain(', '.join(asked))}", "dim") if asked else line


def _call(call: dict[str, Any]) -> Text:
    """Return the line of an open call."""
    left_s = seconds_until(call["next_attempt"])
    following = f"next in {duration(left_s)}" if left_s > 0 else "next now"
    error = f": {call['last_error']}" if call["last_error"] else ""
    failed = f"{counted(call['attempts'], 'attempt')} failed, {following}{error}"
    return Text(plain(f"no answer to {call['key']}: {failed}"), "yellow")
