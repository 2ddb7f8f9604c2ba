"""The partitioner of Kafka's Java clients."""

from aiokafka.partitioner import murmur2


def java_partition(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's Java clients and aiokafka choose for a key by default."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
