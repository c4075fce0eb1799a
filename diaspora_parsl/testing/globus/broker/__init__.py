"""The AMQP broker that delivers results: server, connections, channels and queues."""
