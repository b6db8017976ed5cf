"""The log store: OpenSearch, which answers as Elasticsearch does."""
