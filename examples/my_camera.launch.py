# SPDX-License-Identifier: Apache-2.0
"""A camera of your own with a cluster: `ros2 launch dnn_dist my_camera.launch.py robot:=r1`; on r2: `robot:=r2`.

Any driver will do whose images come on the topic `image`, or are remapped to it. It knows nothing of dnn_dist and needs
no DDS profile. The parameter file beside this one names no camera, so none of ours is started.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import LaunchConfigurationEquals
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

CLUSTER = Path(get_package_share_directory("dnn_dist"), "launch", "cluster.launch.py")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` calls."""
    robot = DeclareLaunchArgument("robot", default_value="r1", description="which robot of the file this one is")
    camera = Node(
        package="v4l2_camera",
        executable="v4l2_camera_node",
        remappings=[("image_raw", "image")],
        condition=LaunchConfigurationEquals("robot", "r1"),
    )
    cluster = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(CLUSTER)),
        launch_arguments={
            "params_file": str(Path(__file__).with_name("my_fleet.yaml")),
            "robot": LaunchConfiguration("robot"),
        }.items(),
    )
    return LaunchDescription([robot, camera, cluster])
