# SPDX-License-Identifier: Apache-2.0
"""From the last tensor to boxes in the picture, and drawing them.

    boxes.py      Detection, and suppression of boxes that say the same (NMS)
    letterbox.py  fitting an image into the model's input, and boxes back
    card.py       the model card: what a .tflite file does not say about itself
    head.py       what every detection head is, and building the one that a card names
    yolo.py       grids of anchors, one or several strides
    anchor_free.py a list of boxes that the model has decoded itself, as of YOLOv8
    ssd.py        regressions against priors, with or without TensorFlow Lite's post-processing op
    classify.py   one vector of class scores
    draw.py       boxes, tiles and a caption on a copy of the image
    text.py       small legible text for draw.py

May import numpy, cv2, yaml and `dnn_dist.errors`; nothing of graph, cut, plan, run or ROS.
"""
