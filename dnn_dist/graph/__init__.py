# SPDX-License-Identifier: Apache-2.0
"""What a network is: tensors, ops and their geometry, read from .tflite and written back.

    region.py      a half-open box of rows and columns
    network.py     Tensor, Op, Network: values, no bytes
    geometry.py    which input region an op needs for an output region
    facts.py       what rules are told about an op while a file is read
    tileable.py    which geometry an op has, or why it cannot be tiled
    resample.py    the same for resizing, slicing, transposed convolutions
    dilated.py     dilated convolutions that converters write as three ops, made one
    squares.py     sums of squares, which the runtime computes in one step, made one
    shapes.py      shapes that the file leaves open, from those before
    fold.py        ops that give the same in every run
    cost.py        multiply-accumulates of an op
    tflite.py      read_network: a .tflite file as a Network
    write.py       GraphWriter: operators copied or made anew, constants by where they lie
    piecefile.py   PieceFile: the .tflite file that comes of it, streamed
    digest.py      hashes of large files, kept from run to run
    modelfile.py   a mapped .tflite file, its tables and its constants
    flatbuffer.py  FlatBuffers both ways, every access checked
    schema.py      the schema of .tflite as data
    metadata.py    what a .tflite file says about itself, and the files packed into it
    metadataschema.py   the schema of that

Imports nothing of this project but `errors`, and no package but NumPy.
"""
