"""Checkpoint -> ONNX, without torch: `python -m cohere_lite.export CHECKPOINT OUT`.

Reading order: checkpoint.py (what is in the folder), graph.py (ONNX nodes and streamed weights),
encoder.py and decoder.py (the model), vocabulary.py (tokens.txt), __main__.py (the command).
"""
