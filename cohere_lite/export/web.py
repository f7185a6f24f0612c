"""An export made ready for browsers: caches of any length, since WebAssembly copies them at every step; and weights in
files small enough to be fetched one by one, kept, and fetched again where one of them fails."""

from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from .graph import ALIGNMENT

CACHE_AXIS = 2  # (batch, heads, positions, head_dim)


def make_ready(folder: Path, shard_bytes: int) -> list[str]:
    """Rewrite the graphs of an export in the fast layout, one after another. A file of weights holds at most
    shard_bytes, or one tensor that is larger. Returns what there is to say about it."""
    said = []
    for path in sorted(folder.glob("*.onnx")):
        model = onnx.load(path, load_external_data=False)
        open_cache_length(model)
        files = shard(model, path, shard_bytes)
        path.write_bytes(model.SerializeToString())
        largest = max((file.stat().st_size for file in files), default=0)
        count = f"{len(files)} file{'s' * (len(files) != 1)}"
        said.append(f"{path.name}: its weights in {count}, the largest of {largest / 1e6:.1f} MB")
    return said


def open_cache_length(model: onnx.ModelProto) -> None:
    """Let the decoder's caches be of any length; its metadata then says the longest, max_positions."""
    for value in (*model.graph.input, *model.graph.output):
        if value.name.startswith(("past_", "present_")):
            size = value.type.tensor_type.shape.dim[CACHE_AXIS]
            metadata = {entry.key: entry.value for entry in model.metadata_props}
            onnx.helper.set_model_props(model, metadata | {"max_positions": str(size.dim_value)})
            size.dim_param = "positions"


def shard(model: onnx.ModelProto, path: Path, shard_bytes: int) -> list[Path]:
    """Copy the weights of a graph from the file beside it into several, and delete that one."""
    old: set[Path] = set()
    new: list[Path] = []
    room = 0
    for tensor in filter(uses_external_data, model.graph.initializer):
        place = {entry.key: entry.value for entry in tensor.external_data}
        source, length = path.parent / place["location"], int(place["length"])
        old.add(source)
        if not new or length > room:
            new.append(path.with_name(f"{path.name}.{len(new):02}.data"))
            new[-1].write_bytes(b"")
            room = shard_bytes
        with open(source, "rb") as read, open(new[-1], "ab") as write:
            read.seek(int(place["offset"]))
            offset = write.tell()
            write.write(read.read(length))
            write.write(b"\0" * (-write.tell() % ALIGNMENT))
            room -= write.tell() - offset
        del tensor.external_data[:]
        for key, value in {"location": new[-1].name, "offset": offset, "length": length}.items():
            tensor.external_data.add(key=key, value=str(value))
    for source in old:
        source.unlink()
    return new
