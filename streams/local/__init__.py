"""The parts that make a bare machine enough: a Kafka that is downloaded and started here, and worker directories."""
