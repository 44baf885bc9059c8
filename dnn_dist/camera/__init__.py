# SPDX-License-Identifier: Apache-2.0
"""Where frames come from; nothing here knows ROS, and nothing of this project is imported.

    sources.py   open_source: scenes, folders, videos, devices
    scene.py     synthetic warehouse scenes: the picture and the boxes of what can be seen
    hall.py      their floor, racks, walls and light
    solids.py    cones, crates, barrels and robots as lists of quads
    pinhole.py   the camera that sees them
"""
