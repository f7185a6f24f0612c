"""Many recordings on many machines, with Ray Data: python -m cohere_lite.batch (extra `ray`)."""
