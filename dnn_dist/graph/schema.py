# SPDX-License-Identifier: Apache-2.0
"""The schema of .tflite files as data: which table has which fields, in slot order.

Taken from the FlatBuffers schema that LiteRT ships (tensorflow/lite schema.fbs); `test/test_schema.py`
derives the same text from LiteRT's generated code, compares, and prints it anew when LiteRT's grows. Having
it as data makes reading checked and lazy, lets any operator be copied without knowing it, and needs neither
`flatbuffers` nor 20,000 lines of generated accessors, which tflite-runtime does not ship.

A line is `Table: field:type=default ...`. Types: struct's letters for scalars, `s` string, `@T` table, `|U` a
union (its member's number is the field before it), `[x]` a vector; `-` is a slot that is no longer used.
"""

from dataclasses import dataclass

_TABLES = """
AddOptions: fused_activation_function:b pot_scale_int16:?=1
ArgMaxOptions: output_type:b
ArgMinOptions: output_type:b
BatchMatMulOptions: adj_x:? adj_y:? asymmetric_quantize_inputs:?
BidirectionalSequenceLSTMOptions: fused_activation_function:b cell_clip:f proj_clip:f merge_outputs:?
    time_major:?=1 asymmetric_quantize_inputs:?
BidirectionalSequenceRNNOptions: time_major:? fused_activation_function:b merge_outputs:?
    asymmetric_quantize_inputs:?
BlockwiseQuantization: scales:i zero_points:i block_size:i block_shape:[i]
BucketizeOptions: boundaries:[f]
Buffer: data:[B] offset:Q size:Q
CallOnceOptions: init_subgraph_index:i
CallOptions: subgraph:I
CastOptions: in_data_type:b out_data_type:b
ConcatEmbeddingsOptions: num_channels:i num_columns_per_channel:[i] embedding_dim_per_channel:[i]
ConcatenationOptions: axis:i fused_activation_function:b
Conv2DOptions: padding:b stride_w:i stride_h:i fused_activation_function:b dilation_wfactor:i=1
    dilation_hfactor:i=1 quantized_bias_type:b
Conv3DOptions: padding:b stride_d:i stride_w:i stride_h:i fused_activation_function:b dilation_dfactor:i=1
    dilation_wfactor:i=1 dilation_hfactor:i=1
CumsumOptions: exclusive:? reverse:?
CustomQuantization: custom:[B]
DepthToSpaceOptions: block_size:i
DepthwiseConv2DOptions: padding:b stride_w:i stride_h:i depth_multiplier:i fused_activation_function:b
    dilation_wfactor:i=1 dilation_hfactor:i=1
DimensionMetadata: format:b dense_size:i array_segments_type:B array_segments:|SparseIndexVector
    array_indices_type:B array_indices:|SparseIndexVector
DivOptions: fused_activation_function:b
EmbeddingLookupSparseOptions: combiner:b
ExternalBuffer: id:I group:I offset:Q - packing:s
ExternalBufferGroup: name:s
FakeQuantOptions: min:f max:f num_bits:i narrow_range:?
FullyConnectedOptions: fused_activation_function:b weights_format:b keep_num_dims:?
    asymmetric_quantize_inputs:? quantized_bias_type:b quant_spec:[B]
GatherOptions: axis:i batch_dims:i
GeluOptions: approximate:?
HashtableOptions: table_id:i key_dtype:b value_dtype:b
IfOptions: then_subgraph_index:i else_subgraph_index:i
Int32Vector: values:[i]
L2NormOptions: fused_activation_function:b
LSHProjectionOptions: type:b
LSTMOptions: fused_activation_function:b cell_clip:f proj_clip:f kernel_type:b asymmetric_quantize_inputs:?
LeakyReluOptions: alpha:f
LocalResponseNormalizationOptions: radius:i bias:f alpha:f beta:f
Metadata: name:s buffer:I
MirrorPadOptions: mode:b
Model: version:I operator_codes:[@OperatorCode] subgraphs:[@SubGraph] description:s buffers:[@Buffer]
    metadata_buffer:[i] metadata:[@Metadata] signature_defs:[@SignatureDef]
    external_buffer_groups:[@ExternalBufferGroup] external_buffers:[@ExternalBuffer]
MulOptions: fused_activation_function:b
MultiAxisQuantization: scales:i zero_points:i block_size:i quantized_dimensions:[i]
OneHotOptions: axis:i
Operator: opcode_index:I inputs:[i] outputs:[i] builtin_options_type:B builtin_options:|BuiltinOptions
    custom_options:[B] custom_options_format:b mutating_variable_inputs:[?] intermediates:[i]
    large_custom_options_offset:Q large_custom_options_size:Q builtin_options2_type:B
    builtin_options2:|BuiltinOptions2 debug_metadata_index:i=-1
OperatorCode: deprecated_builtin_code:b custom_code:s version:i=1 builtin_code:i
PackOptions: values_count:i axis:i
Pool2DOptions: padding:b stride_w:i stride_h:i filter_width:i filter_height:i fused_activation_function:b
QuantizationParameters: min:[f] max:[f] scale:[f] zero_point:[q] details_type:B details:|QuantizationDetails
    quantized_dimension:i
RNNOptions: fused_activation_function:b asymmetric_quantize_inputs:?
RandomOptions: seed:q seed2:q
ReduceWindowOptions: reduce_function:i
ReducerOptions: keep_dims:?
ReshapeOptions: new_shape:[i]
ResizeBilinearOptions: - - align_corners:? half_pixel_centers:?
ResizeNearestNeighborOptions: align_corners:? half_pixel_centers:?
ReverseSequenceOptions: seq_dim:i batch_dim:i
SVDFOptions: rank:i fused_activation_function:b asymmetric_quantize_inputs:?
SequenceRNNOptions: time_major:? fused_activation_function:b asymmetric_quantize_inputs:?
ShapeOptions: out_type:b
SignatureDef: inputs:[@TensorMap] outputs:[@TensorMap] signature_key:s - subgraph_index:I
SkipGramOptions: ngram_size:i max_skip_size:i include_all_ngrams:?
SoftmaxOptions: beta:f
SpaceToDepthOptions: block_size:i
SparseToDenseOptions: validate_indices:?
SparsityParameters: traversal_order:[i] block_map:[i] dim_metadata:[@DimensionMetadata]
SplitOptions: num_splits:i
SplitVOptions: num_splits:i
SqueezeOptions: squeeze_dims:[i]
StableHLOCompositeOptions: name:s decomposition_subgraph_index:i composite_attributes:[B]
    composite_attributes_format:b version:i
StablehloBroadcastInDimOptions: broadcast_dimensions:[q]
StablehloCaseOptions: branch_subgraph_indices:[i]
StablehloCompareOptions: comparison_direction:I compare_type:I
StablehloConcatenateOptions: dimension:q
StablehloConvolutionOptions: window_strides:[q] padding:[q] lhs_dilation:[q] rhs_dilation:[q]
    window_reversal:[?] input_batch_dimension:q input_feature_dimension:q input_spatial_dimensions:[q]
    kernel_input_feature_dimension:q kernel_output_feature_dimension:q kernel_spatial_dimensions:[q]
    output_batch_dimension:q output_feature_dimension:q output_spatial_dimensions:[q] feature_group_count:q
    batch_group_count:q precision_config:[I]
StablehloCustomCallOptions: call_target_name:s has_side_effect:? backend_config:s api_version:i
    called_computations:[i] custom_attributes:[B]
StablehloDotGeneralOptions: lhs_batching_dimensions:[q] rhs_batching_dimensions:[q]
    lhs_contracting_dimensions:[q] rhs_contracting_dimensions:[q] precision_config:[I]
StablehloDynamicSliceOptions: slice_sizes:[q]
StablehloGatherOptions: offset_dims:[q] collapsed_slice_dims:[q] start_index_map:[q] index_vector_dim:q
    slice_sizes:[q] indices_are_sorted:?
StablehloIotaOptions: iota_dimension:q
StablehloPadOptions: edge_padding_low:[q] edge_padding_high:[q] interior_padding:[q]
StablehloReduceOptions: dimensions:[q] body_subgraph_index:i
StablehloReduceWindowOptions: window_dimensions:[q] window_strides:[q] base_dilations:[q]
    window_dilations:[q] padding:[q] body_subgraph_index:i
StablehloRngBitGeneratorOptions: algorithm:b
StablehloScatterOptions: indices_are_sorted:? update_window_dims:[q] inserted_window_dims:[q]
    scatter_dims_to_operand_dims:[q] index_vector_dim:q unique_indices:? update_computation_subgraph_index:i
StablehloSliceOptions: start_indices:[q] limit_indices:[q] strides:[q]
StablehloSortOptions: dimension:q is_stable:? comparator_subgraph_index:i
StablehloTransposeOptions: permutation:[q]
StablehloWhileOptions: cond_subgraph_index:i body_subgraph_index:i
StridedSliceOptions: begin_mask:i end_mask:i ellipsis_mask:i new_axis_mask:i shrink_axis_mask:i offset:?
SubGraph: tensors:[@Tensor] inputs:[i] outputs:[i] operators:[@Operator] name:s debug_metadata_index:i=-1
SubOptions: fused_activation_function:b pot_scale_int16:?=1
Tensor: shape:[i] type:b buffer:I name:s quantization:@QuantizationParameters is_variable:?
    sparsity:@SparsityParameters shape_signature:[i] has_rank:? variant_tensors:[@VariantSubType]
    external_buffer:I
TensorMap: name:s tensor_index:I
TransposeConvOptions: padding:b stride_w:i stride_h:i fused_activation_function:b quantized_bias_type:b
Uint16Vector: values:[H]
Uint8Vector: values:[B]
UnidirectionalSequenceLSTMOptions: fused_activation_function:b cell_clip:f proj_clip:f time_major:?
    asymmetric_quantize_inputs:? diagonal_recurrent_tensors:?
UniqueOptions: idx_out_type:b=2
UnpackOptions: num:i axis:i
VarHandleOptions: container:s shared_name:s
VariantSubType: shape:[i] type:b has_rank:?
WhileOptions: cond_subgraph_index:i body_subgraph_index:i
"""

# Options that hold nothing; their mere presence in an operator is what counts.
_EMPTY_TABLES = """
ATan2Options AbsOptions AddNOptions AssignVariableOptions BatchToSpaceNDOptions BitcastOptions
BitwiseXorOptions BroadcastToOptions CosOptions DensifyOptions DequantizeOptions DilateOptions
DynamicUpdateSliceOptions EqualOptions ExpOptions ExpandDimsOptions FillOptions FloorDivOptions
FloorModOptions GatherNdOptions GreaterEqualOptions GreaterOptions HardSwishOptions HashtableFindOptions
HashtableImportOptions HashtableSizeOptions LessEqualOptions LessOptions LogSoftmaxOptions LogicalAndOptions
LogicalNotOptions LogicalOrOptions MatrixDiagOptions MatrixSetDiagOptions MaximumMinimumOptions NegOptions
NonMaxSuppressionV4Options NonMaxSuppressionV5Options NotEqualOptions PadOptions PadV2Options PowOptions
QuantizeOptions RangeOptions RankOptions ReadVariableOptions ReverseV2Options Rfft2dOptions
RightShiftOptions ScatterNdOptions SegmentSumOptions SelectOptions SelectV2Options SignOptions SliceOptions
SpaceToBatchNDOptions SquareOptions SquaredDifferenceOptions StablehloShiftLeftOptions TileOptions
TopKV2Options TransposeOptions UnsortedSegmentMaxOptions UnsortedSegmentMinOptions
UnsortedSegmentProdOptions UnsortedSegmentSumOptions WhereOptions ZerosLikeOptions
"""

_UNIONS = """
BuiltinOptions: Conv2DOptions DepthwiseConv2DOptions ConcatEmbeddingsOptions LSHProjectionOptions
    Pool2DOptions SVDFOptions RNNOptions FullyConnectedOptions SoftmaxOptions ConcatenationOptions
    AddOptions L2NormOptions LocalResponseNormalizationOptions LSTMOptions ResizeBilinearOptions CallOptions
    ReshapeOptions SkipGramOptions SpaceToDepthOptions EmbeddingLookupSparseOptions MulOptions PadOptions
    GatherOptions BatchToSpaceNDOptions SpaceToBatchNDOptions TransposeOptions ReducerOptions SubOptions
    DivOptions SqueezeOptions SequenceRNNOptions StridedSliceOptions ExpOptions TopKV2Options SplitOptions
    LogSoftmaxOptions CastOptions DequantizeOptions MaximumMinimumOptions ArgMaxOptions LessOptions
    NegOptions PadV2Options GreaterOptions GreaterEqualOptions LessEqualOptions SelectOptions SliceOptions
    TransposeConvOptions SparseToDenseOptions TileOptions ExpandDimsOptions EqualOptions NotEqualOptions
    ShapeOptions PowOptions ArgMinOptions FakeQuantOptions PackOptions LogicalOrOptions OneHotOptions
    LogicalAndOptions LogicalNotOptions UnpackOptions FloorDivOptions SquareOptions ZerosLikeOptions
    FillOptions BidirectionalSequenceLSTMOptions BidirectionalSequenceRNNOptions
    UnidirectionalSequenceLSTMOptions FloorModOptions RangeOptions ResizeNearestNeighborOptions
    LeakyReluOptions SquaredDifferenceOptions MirrorPadOptions AbsOptions SplitVOptions UniqueOptions
    ReverseV2Options AddNOptions GatherNdOptions CosOptions WhereOptions RankOptions ReverseSequenceOptions
    MatrixDiagOptions QuantizeOptions MatrixSetDiagOptions HardSwishOptions IfOptions WhileOptions
    DepthToSpaceOptions NonMaxSuppressionV4Options NonMaxSuppressionV5Options ScatterNdOptions
    SelectV2Options DensifyOptions SegmentSumOptions BatchMatMulOptions CumsumOptions CallOnceOptions
    BroadcastToOptions Rfft2dOptions Conv3DOptions HashtableOptions HashtableFindOptions
    HashtableImportOptions HashtableSizeOptions VarHandleOptions ReadVariableOptions AssignVariableOptions
    RandomOptions BucketizeOptions GeluOptions DynamicUpdateSliceOptions UnsortedSegmentProdOptions
    UnsortedSegmentMaxOptions UnsortedSegmentMinOptions UnsortedSegmentSumOptions ATan2Options SignOptions
    BitcastOptions BitwiseXorOptions RightShiftOptions
BuiltinOptions2: StablehloConcatenateOptions StablehloBroadcastInDimOptions StablehloSliceOptions
    StablehloConvolutionOptions StablehloCustomCallOptions StablehloReduceOptions StablehloScatterOptions
    StablehloCompareOptions StablehloDynamicSliceOptions StablehloPadOptions StablehloIotaOptions
    StablehloDotGeneralOptions StablehloReduceWindowOptions StablehloSortOptions StablehloWhileOptions
    StablehloGatherOptions StablehloTransposeOptions DilateOptions StablehloRngBitGeneratorOptions
    ReduceWindowOptions StableHLOCompositeOptions StablehloShiftLeftOptions StablehloCaseOptions
QuantizationDetails: CustomQuantization BlockwiseQuantization MultiAxisQuantization
SparseIndexVector: Int32Vector Uint16Vector Uint8Vector
"""

# In order of their number; index 0 is ADD.
_OPERATORS = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX
SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD
UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE
UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE
BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL
LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT
RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT
UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR
LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK
ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4
NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE
READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL
GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2
UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE
STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE
STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG
STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT
STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT
STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL
STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE
STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT
STABLEHLO_CASE
"""

DTYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8",
    "float64", "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2",
    "uint4", "float8_e4m3fn", "float8_e5m2",
)
"""Names of tensor types in order of their number. Where NumPy has the type the name is NumPy's."""

ITEM_BITS = {
    **dict.fromkeys(("int2",), 2),
    **dict.fromkeys(("int4", "uint4"), 4),
    **dict.fromkeys(("int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2"), 8),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 16),
    **dict.fromkeys(("int32", "uint32", "float32"), 32),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 64),
    **dict.fromkeys(("complex128",), 128),
    **dict.fromkeys(("string", "resource", "variant"), 0),
}
"""Bits that one value takes; 0 where the size is not known from the shape."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a table: its name, its type as above, and the value that is meant when it is absent."""

    name: str
    type: str
    default: float | int | bool


def _field(text: str) -> Field | None:
    if text == "-":
        return None
    name, _, rest = text.partition(":")
    kind, _, default = rest.partition("=")
    if kind == "?":
        return Field(name, kind, default == "1")
    return Field(name, kind, float(default or 0) if kind in "fd" else int(default or 0))


def parse_tables(text: str) -> dict[str, tuple[Field | None, ...]]:
    """Tables as `TABLES` has them, from lines as above."""
    tables: dict[str, tuple[Field | None, ...]] = {}
    name = ""
    fields: list[Field | None] = []
    for word in text.split():
        if word.endswith(":"):
            name, fields = word[:-1], []
        else:
            fields.append(_field(word))
        tables[name] = tuple(fields)
    return tables


TABLES = {**dict.fromkeys(_EMPTY_TABLES.split(), ()), **parse_tables(_TABLES)}
UNIONS: dict[str, dict[int, str]] = {
    line.split(":")[0]: dict(enumerate(line.split(":")[1].split(), start=1))
    for line in _UNIONS.strip().replace("\n    ", " ").splitlines()
}
OPERATORS: dict[int, str] = dict(enumerate(_OPERATORS.split()))
OPERATOR_CODES: dict[str, int] = {name: code for code, name in OPERATORS.items()}
