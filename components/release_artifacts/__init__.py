"""Put what was decided on, and what it was decided by, to the place that is configured."""
