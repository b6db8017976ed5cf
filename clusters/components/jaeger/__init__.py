"""Jaeger 2: takes the mesh's spans by OTLP and as Zipkin, keeps a bounded number of traces in memory, and answers who asks for them."""
