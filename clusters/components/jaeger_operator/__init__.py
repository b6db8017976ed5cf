"""The Jaeger operator: makes a Jaeger, of the first generation, of what a resource asks for."""
