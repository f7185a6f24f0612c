"""Word and character error rates, speed and size of models over data sets: `python -m cohere_lite.evaluate`."""
