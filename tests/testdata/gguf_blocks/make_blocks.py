#!/usr/bin/env python3
"""Makes the files of this folder; see README.md.

  make_blocks.py LLAMA_QUANTIZE MODEL.gguf

Needs the PyPI package `gguf` (0.19.0 was used) and llama.cpp's llama-quantize.
"""

import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np

TYPES = {
    "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q5_0": "Q5_0", "Q5_1": "Q5_1", "Q8_0": "Q8_0", "Q2_K": "Q2_K_S",
    "Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "Q6_K": "Q6_K", "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
}
TENSOR = "blk.7.ffn_down.weight"  # rows of 1536: whole blocks of every type
ROW = 5
ELEMENTS = 768


def main() -> None:
    quantize, model = sys.argv[1:]
    here = pathlib.Path(__file__).parent
    with tempfile.TemporaryDirectory() as scratch:
        for name, ftype in TYPES.items():
            out = pathlib.Path(scratch) / "q.gguf"
            command = [quantize, "--allow-requantize", "--pure"]
            if name == "Q2_K":
                # The program refuses two bits without an importance matrix unless told by tensor.
                command += ["--tensor-type", "ffn_down=q2_k"]
                ftype = "Q4_0"
            subprocess.run(command + [model, out, ftype], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            tensor = next(t for t in gguf.GGUFReader(out).tensors if t.name == TENSOR)
            assert tensor.tensor_type.name == name, tensor.tensor_type
            block_elements, block_bytes = gguf.GGML_QUANT_SIZES[tensor.tensor_type]
            row = np.array(tensor.data[ROW]).view(np.uint8)[: ELEMENTS // block_elements * block_bytes]
            values = gguf.quants.dequantize(row[None], tensor.tensor_type)[0].astype("<f4")
            assert values.shape == (ELEMENTS,)
            (here / f"{name}.blocks").write_bytes(row.tobytes())
            (here / f"{name}.f32").write_bytes(values.tobytes())


main()
