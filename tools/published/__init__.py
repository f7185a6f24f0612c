"""Stand-ins of the ONNX files that other people publish for this model, made from a checkpoint by tracing
transformers' own modules, quite apart from cohere_lite/export:

    fused.py -> modules.py -> contracts.py -> first_step.py -> precision.py -> folders.py -> kinds.py

`python -m tools.published` or `kinds.write_published` makes one folder. Needs torch, transformers, onnx, onnxruntime
and, for one kind, onnxscript.
"""
