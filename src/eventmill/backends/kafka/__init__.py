"""Apache Kafka: publisher, subscriber and log, over confluent-kafka."""
