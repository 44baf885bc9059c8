# SPDX-License-Identifier: Apache-2.0
"""What a network is: tensors, ops and their geometry, read from .tflite and written back.

    region.py      a half-open box of rows and columns
    network.py     Tensor, Op, Network: values, no bytes
    geometry.py    which input region an op needs for an output region, and why an op cannot be tiled
    cost.py        multiply-accumulates of an op
    tflite.py      read_network: a .tflite file as a Network
    write.py       GraphWriter: operators copied or made anew, as the bytes of a .tflite file
    modelfile.py   a mapped .tflite file, its tables and its constants
    flatbuffer.py  FlatBuffers both ways, every access checked
    schema.py      the schema of .tflite as data

Imports nothing of this project but `errors`, and no package but NumPy.
"""
