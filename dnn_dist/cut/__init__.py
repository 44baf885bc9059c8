# SPDX-License-Identifier: Apache-2.0
"""Ways to cut a network into pieces that one robot can run by itself.

    piece.py   Port, Piece, Stage: values that say what each piece takes and gives
    walk.py    a tile walked back from its outputs to its inputs, op by op
    tiles.py   cut_tiles: Fused Tile Partitioning of a range of ops
    local.py   cut_local: a range of ops as one piece, untouched
    spec.py    cut_network: the text of a cut ("tiles:3x3") to stages that cover the whole network
    build.py   build_piece: a piece as the bytes of a .tflite file
    merge.py   scatter and gather: arrays of whole tensors to arrays of a piece, and back

Imports `graph` and `errors`, nothing else of this project.
"""
