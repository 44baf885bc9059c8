# SPDX-License-Identifier: Apache-2.0
"""Where frames come from: synthetic scenes, files, folders and devices; nothing here knows ROS."""
