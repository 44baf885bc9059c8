# SPDX-License-Identifier: Apache-2.0
"""Ways to cut a network into pieces that one robot can run by itself.

    piece.py    Port, Piece, Stage: values that say what each piece takes and gives
    walk.py     a tile walked back from its outputs to its inputs, op by op
    tile.py     a tile as a piece, and a piece as a tile
    tiles.py    cut_tiles: Fused Tile Partitioning of a range of ops
    forms.py    tiles that the file of another tile can compute
    reuse.py    tiles that give each other what both would compute
    balance.py  tiles of equal work
    memory.py   what a stage of tiles costs a robot in memory
    auto.py     auto_stages: tiled stages for a whole network, between ops that cannot be tiled
    bands.py    cut_bands: MoDNN's row bands, layer by layer
    slices.py   cut_slices: output channels of convolutions and fully connected layers
    coding.py   parities of slices: coefficients, decoding, what is left off and applied after
    exact.py    sums of int8 layers that float32 cannot hold in one number
    layers.py   cut_layers, cut_points: a pipeline of runs of layers, and where a network can be cut in two
    sides.py    cut_sides: front and rest, layers in any closed sets, between a robot and a server
    local.py    cut_local: a range of ops as one piece, untouched
    shares.py   rows, channels or layers shared out by speed
    feeds.py    Feeds: who gives whom which box where stages meet directly, from worker to worker
    traffic.py  the bytes that move over such a boundary, direct and gathered
    spec.py     cut_network: the text of a cut ("tiles:3x3@0..15;slices:4+1") to stages that cover the network
    digest.py   pieces_digest: what tells pieces of one version from another's
    build.py    build_piece, write_piece: a piece as a .tflite file
    merge.py    scatter and merge: whole tensors to arrays of a piece, and back

Imports `graph` and `errors`, nothing else of this project.
"""
