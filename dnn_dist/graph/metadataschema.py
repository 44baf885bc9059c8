# SPDX-License-Identifier: Apache-2.0
"""The schema of the metadata that a .tflite file may hold about itself, as data in the form of `schema.py`.

Taken from metadata_schema.fbs of TensorFlow Lite Support, version 1.1.0: what is of use here, so `-` is also a slot
that nobody reads. `test/test_metadata.py` has the numbers of the slots a second time.
"""

from dnn_dist.graph.schema import parse_tables

_TABLES = """
AssociatedFile: name:s description:s type:b locale:s
BoundingBoxProperties: index:[I] type:b coordinate_type:b
Content: content_properties_type:B content_properties:|ContentProperties -
FeatureProperties:
ImageProperties: color_space:b -
ModelMetadata: name:s description:s version:s subgraph_metadata:[@SubGraphMetadata] author:s license:s
    associated_files:[@AssociatedFile] min_parser_version:s
NormalizationOptions: mean:[f] std:[f]
ProcessUnit: options_type:B options:|ProcessUnitOptions
ScoreCalibrationOptions: score_transformation:b default_score:f
ScoreThresholdingOptions: global_score_threshold:f
SubGraphMetadata: name:s description:s input_tensor_metadata:[@TensorMetadata]
    output_tensor_metadata:[@TensorMetadata] associated_files:[@AssociatedFile] - -
TensorMetadata: name:s description:s - content:@Content process_units:[@ProcessUnit] -
    associated_files:[@AssociatedFile]
"""

TABLES = parse_tables(_TABLES)
UNIONS = {
    "ContentProperties": {1: "FeatureProperties", 2: "ImageProperties", 3: "BoundingBoxProperties"},
    # 4 and 5 are tokenizers of texts
    "ProcessUnitOptions": {1: "NormalizationOptions", 2: "ScoreCalibrationOptions", 3: "ScoreThresholdingOptions"},
}

IDENTIFIER = b"M001"
AXIS_LABELS, VALUE_LABELS, CALIBRATION = 2, 3, 4
"""Types of an AssociatedFile: names of a tensor's places, names of its values, and parameters to calibrate scores."""
BOUNDARIES, RATIO = 1, 0
"""Type and coordinate type of boxes given by their sides, in parts of the input."""
