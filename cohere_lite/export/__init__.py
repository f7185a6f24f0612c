"""Checkpoint, or published ONNX graphs -> ONNX, without torch: `python -m cohere_lite.export SOURCE OUT`.

Reading order: source.py (what the writers ask for), checkpoint.py (a checkpoint's folder), matrix.py (stored weights),
graph.py (ONNX nodes and streamed weights), encoder.py and decoder.py (the model), vocabulary.py (tokens.txt),
__main__.py (the command).

Of published graphs: onnxfile.py (nodes and constants), weighted.py (products, norms), paths.py (what comes from what),
attention.py (queries, keys, values), published.py (which weight is which), check.py (the same tokens, before anything
is written), pages.py (memory for that).
"""
