"""Speed and memory at real size: random weights of the true shape, every runtime on the same audio, in turns."""
