"""The assignment of tasks to workers: even shares, and as few moves as possible when a worker joins or leaves.

Faust's own assignor cuts every worker down to ``partitions // workers`` and assigns the rest from scratch. With 4
partitions and a third worker two move where one has to; with 14, a fourth worker gets 2 and the others keep 4. Faust
also assigns separately the topics that not every worker subscribes to, while a task needs partition N of every topic in
one place.
"""

from collections.abc import Mapping
from typing import cast

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from faust.app.base import App
from faust.assignor.client_assignment import ClientAssignment, ClientMetadata
from faust.assignor.partition_assignor import (
    ClientAssignmentMapping,
    MemberAssignmentMapping,
    MemberMetadataMapping,
    PartitionAssignor,
)
from faust.types import AppT

from exactly_once.faust.consumer import TaskConsumer


def spread(partitions: int, claims: Mapping[str, set[int]]) -> dict[str, set[int]]:
    """Return each worker's share, given the partitions that each worker had.

    Shares differ by one at most, and no partition moves that need not. If two workers claim a partition, because one of
    them was away, the worker with fewer claims gets it.
    """
    by_claims = sorted(claims, key=lambda worker: (len(claims[worker]), worker))
    free = set(range(partitions))
    kept: dict[str, set[int]] = {}
    for worker in by_claims:
        kept[worker] = claims[worker] & free
        free -= kept[worker]
    size, larger = divmod(partitions, len(claims))
    by_kept = sorted(kept, key=lambda worker: (-len(kept[worker]), worker))
    room = {worker: size + (place < larger) for place, worker in enumerate(by_kept)}
    shares = {worker: set(sorted(kept[worker])[: room[worker]]) for worker in by_kept}
    left = iter(sorted(set(range(partitions)).difference(*shares.values())))
    for worker, share in shares.items():
        share.update(next(left) for _ in range(room[worker] - len(share)))
    return shares


class TaskAssignor(PartitionAssignor):
    """Assigns partition N of every topic to the owner of task N."""

    def _perform_assignment(
        self, cluster: ClusterMetadata, member_metadata: MemberMetadataMapping
    ) -> MemberAssignmentMapping:
        known = {member: self._get_client_metadata(metadata) for member, metadata in member_metadata.items()}
        self._update_member_urls(known)
        claims = {
            member: {partition for partitions in client.assignment.actives.values() for partition in partitions}
            for member, client in known.items()
        }
        shares = spread(cast(App, self.app).conf.topic_partitions, claims)
        assignments: ClientAssignmentMapping = {
            member: ClientAssignment(
                actives={topic: sorted(shares[member]) for topic in metadata.subscription}, standbys={}
            )
            for member, metadata in member_metadata.items()
        }
        groups = {topic: 0 for metadata in member_metadata.values() for topic in metadata.subscription}
        return self._protocol_assignments(
            assignments,
            self._get_changelog_distribution(assignments),
            self._get_external_topic_distribution(assignments),
            groups,
        )

    def on_assignment(self, assignment: ConsumerProtocolMemberMetadata) -> None:
        """Accept an assignment that names another URL of this worker, which Faust would refuse.

        A worker restarted within its session may have a new URL. It gets its former assignment, and joins once more so
        that the others learn the URL.
        """
        found = cast(ClientMetadata, ClientMetadata.loads(self._decompress(assignment.user_data)))
        self._assignment, self._topic_groups = found.assignment, dict(found.topic_groups)
        self._active_tps, self._standby_tps = found.assignment.active_tps, set()
        self.changelog_distribution = found.changelog_distribution
        self.external_topic_distribution = found.external_topic_distribution
        if found.url != str(self._url):
            cast(TaskConsumer, cast(App, self.app).consumer).rejoin()


def assigned_owners(app: AppT, anchor: str) -> dict[int, str]:
    """Return partition -> canonical URL of its owner, as of the last assignment; empty before the first."""
    distribution = cast(PartitionAssignor, app.assignor).external_topics_metadata()
    return {partition: url for url, topics in distribution.items() for partition in topics.get(anchor, ())}
