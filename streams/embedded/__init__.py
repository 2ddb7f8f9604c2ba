"""What makes a bare machine enough: a real Kafka fetched and started here, worker directories, child processes."""
