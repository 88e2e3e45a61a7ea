"""RabbitMQ: carries messages between services. A service keeps its truth elsewhere."""
