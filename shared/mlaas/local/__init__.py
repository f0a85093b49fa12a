"""`mlaas up`: the platform on one machine.

Reads the YAML under `eventing/base` and does with processes what Knative does with pods, against a real Kafka. It is for
laptops and tests: one machine, one process per function. It is never how the platform scales; that is Knative's work.
"""
