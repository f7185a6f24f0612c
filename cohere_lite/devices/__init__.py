"""Other devices than the CPU: which there are (providers.py), graphs opened on one (opening.py; engines.py for TensorRT
and CoreML, masked.py for the encoder that they take), decoding in a GPU's memory (on_device.py, side_by_side.py), and
whether it computes what it should (selfcheck.py) where it should (split.py). The self-check is for the CPU, too."""
