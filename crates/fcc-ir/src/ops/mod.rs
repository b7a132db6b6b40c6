//! The operators. A new one is a module with an [`Operator`] and a line in the list below.
use crate::op::{Operator, Schema};
use std::collections::HashMap;
use std::sync::LazyLock;

macro_rules! operators {
    ($($variant:ident => $operator:expr,)*) => {
        /// Which operator a node is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Op {
            $($variant,)*
            /// An operator fcc does not know, or a call of a model's function. It is kept, and not computed.
            Opaque,
        }

        impl Op {
            /// Every operator fcc knows.
            pub const ALL: &'static [Op] = &[$(Op::$variant,)*];
            /// The operator's own module; `None` for [`Op::Opaque`].
            pub fn operator(self) -> Option<&'static dyn Operator> {
                match self { $(Op::$variant => Some(&$operator),)* Op::Opaque => None }
            }
        }
    };
}

pub mod activation;
pub mod arg;
pub mod attention;
pub mod batch_normalization;
pub mod binary;
pub mod broadcast;
pub mod cast;
pub mod causal_conv;
pub mod center_crop_pad;
pub mod clip;
pub mod col2im;
pub mod compare;
pub mod concat;
pub mod constant;
pub mod constant_of_shape;
pub mod control;
pub mod conv;
pub mod conv_transpose;
pub mod cumulative;
pub mod deform_conv;
pub mod det;
pub mod dropout;
pub mod einsum;
pub mod expand;
pub mod flatten;
pub mod flex_attention;
pub mod gather;
pub mod gemm;
pub mod global_pool;
pub mod grid_sample;
pub mod identity;
pub mod image_scaler;
pub mod instance_normalization;
pub mod integer;
pub mod layer_normalization;
pub mod linear_attention;
mod lists;
#[cfg(test)]
mod long;
pub mod loss;
pub mod lp_normalization;
pub mod lrn;
pub mod matmul;
pub mod max_unpool;
pub mod microsoft;
pub mod ml;
pub mod movement;
pub mod nms;
pub(crate) mod numeric;
pub mod one_hot;
pub mod optimizer;
pub mod optional;
pub mod pad;
pub mod pool;
pub mod predicate;
pub mod quantize;
pub mod random_values;
pub mod range;
pub mod recurrent;
pub mod reduce;
pub mod reshape;
pub mod resize;
pub mod resize_taps;
pub mod roi;
pub mod rotary_embedding;
pub mod scan;
pub mod scatter;
pub mod select;
pub mod sequence;
pub mod sequence_tensor;
pub mod shape_of;
pub mod signal;
pub mod slice;
pub mod softmax;
pub mod space_depth;
pub mod split;
pub mod squeeze;
pub mod strings;
pub mod swiglu;
#[cfg(test)]
pub(crate) mod testing;
pub mod tf_idf;
pub mod topk;
pub mod transpose;
pub mod trilu;
pub mod unary;
pub mod variadic;
pub mod where_;

operators! {
    Abs => unary::ABS,
    Acos => unary::ACOS,
    Acosh => unary::ACOSH,
    Adagrad => optimizer::ADAGRAD,
    Adam => optimizer::ADAM,
    Add => binary::ADD,
    AffineGrid => grid_sample::AffineGrid,
    And => binary::AND,
    ArgMax => arg::ARG_MAX,
    ArgMin => arg::ARG_MIN,
    ArrayFeatureExtractor => ml::array_feature_extractor::ArrayFeatureExtractor,
    Asin => unary::ASIN,
    Asinh => unary::ASINH,
    Atan => unary::ATAN,
    Atanh => unary::ATANH,
    Attention => attention::Attention,
    AveragePool => pool::AveragePool,
    BatchNormalization => batch_normalization::BatchNormalization,
    Bernoulli => random_values::Bernoulli,
    BiasGelu => microsoft::activation::BIAS_GELU,
    Binarizer => ml::binarizer::Binarizer,
    BitCast => cast::BitCast,
    BitShift => binary::BIT_SHIFT,
    BitwiseAnd => binary::BITWISE_AND,
    BitwiseNot => predicate::BitwiseNot,
    BitwiseOr => binary::BITWISE_OR,
    BitwiseXor => binary::BITWISE_XOR,
    BlackmanWindow => signal::BLACKMAN,
    Cast => cast::Cast,
    CastLike => cast::CastLike,
    CastMap => ml::cast_map::CastMap,
    CategoryMapper => ml::category_mapper::CategoryMapper,
    CausalConvWithState => causal_conv::CausalConvWithState,
    Ceil => unary::CEIL,
    Celu => activation::CELU,
    CenterCropPad => center_crop_pad::CenterCropPad,
    Clip => clip::Clip,
    Col2Im => col2im::Col2Im,
    Compress => select::Compress,
    Concat => concat::Concat,
    ConcatFromSequence => sequence_tensor::ConcatFromSequence,
    Constant => constant::Constant,
    ConstantOfShape => constant_of_shape::ConstantOfShape,
    Conv => conv::Conv,
    ConvInteger => integer::ConvInteger,
    ConvTranspose => conv_transpose::ConvTranspose,
    Cos => unary::COS,
    Cosh => unary::COSH,
    CumProd => cumulative::CUM_PROD,
    CumSum => cumulative::CUM_SUM,
    DFT => signal::Dft,
    DeformConv => deform_conv::DeformConv,
    DepthToSpace => space_depth::DepthToSpace,
    DequantizeLinear => quantize::DequantizeLinear,
    Det => det::Det,
    DictVectorizer => ml::dict_vectorizer::DictVectorizer,
    Div => binary::DIV,
    Dropout => dropout::Dropout,
    DynamicQuantizeLSTM => microsoft::dynamic_quantize::DynamicQuantizeLSTM,
    DynamicQuantizeLinear => quantize::DynamicQuantizeLinear,
    DynamicQuantizeMatMul => microsoft::dynamic_quantize::DynamicQuantizeMatMul,
    Einsum => einsum::Einsum,
    Elu => activation::ELU,
    EmbedLayerNormalization => microsoft::embed_layer_normalization::EmbedLayerNormalization,
    Equal => compare::EQUAL,
    Erf => unary::ERF,
    Exp => unary::EXP,
    Expand => expand::Expand,
    ExpandDims => microsoft::movement::ExpandDims,
    EyeLike => trilu::EyeLike,
    FastGelu => microsoft::activation::FAST_GELU,
    FeatureVectorizer => ml::feature_vectorizer::FeatureVectorizer,
    Flatten => flatten::Flatten,
    FlexAttention => flex_attention::FlexAttention,
    Floor => unary::FLOOR,
    FusedConv => microsoft::fused::FusedConv,
    FusedGemm => microsoft::fused::FusedGemm,
    FusedMatMul => microsoft::fused::FUSED_MAT_MUL,
    GRU => recurrent::GRU,
    Gather => gather::Gather,
    GatherBlockQuantized => microsoft::gather_block_quantized::GatherBlockQuantized,
    GatherElements => gather::GatherElements,
    GatherND => gather::GatherND,
    Gelu => activation::GELU,
    Gemm => gemm::Gemm,
    GlobalAveragePool => global_pool::AVERAGE,
    GlobalLpPool => global_pool::LP,
    GlobalMaxPool => global_pool::MAX,
    Greater => compare::GREATER,
    GreaterOrEqual => compare::GREATER_OR_EQUAL,
    GridSample => grid_sample::GridSample,
    GroupNormalization => instance_normalization::GroupNormalization,
    GroupQueryAttention => microsoft::group_query_attention::GroupQueryAttention,
    HammingWindow => signal::HAMMING,
    HannWindow => signal::HANN,
    HardSigmoid => activation::HARD_SIGMOID,
    HardSwish => unary::HARD_SWISH,
    Hardmax => softmax::HARDMAX,
    Identity => identity::Identity,
    If => control::If,
    ImageScaler => image_scaler::ImageScaler,
    Imputer => ml::imputer::Imputer,
    InstanceNormalization => instance_normalization::InstanceNormalization,
    Inverse => microsoft::inverse::Inverse,
    IsInf => predicate::IsInf,
    IsNaN => predicate::IsNaN,
    LRN => lrn::Lrn,
    LSTM => recurrent::LSTM,
    LabelEncoder => ml::label_encoder::LabelEncoder,
    LayerNormalization => layer_normalization::LayerNormalization,
    LeakyRelu => activation::LEAKY_RELU,
    Less => compare::LESS,
    LessOrEqual => compare::LESS_OR_EQUAL,
    LinearAttention => linear_attention::LinearAttention,
    LinearClassifier => ml::linear::LinearClassifier,
    LinearRegressor => ml::linear::LinearRegressor,
    Log => unary::LOG,
    LogSoftmax => softmax::LOG_SOFTMAX,
    Loop => control::Loop,
    LpNormalization => lp_normalization::LpNormalization,
    LpPool => pool::LpPool,
    MatMul => matmul::MatMul,
    MatMulInteger => integer::MatMulInteger,
    MatMulIntegerToFloat => microsoft::dynamic_quantize::MatMulIntegerToFloat,
    MatMulNBits => microsoft::matmul_nbits::MatMulNBits,
    Max => variadic::MAX,
    MaxPool => pool::MaxPool,
    MaxRoiPool => roi::MaxRoiPool,
    MaxUnpool => max_unpool::MaxUnpool,
    Mean => variadic::MEAN,
    MeanVarianceNormalization => lp_normalization::MeanVarianceNormalization,
    MelWeightMatrix => signal::MelWeightMatrix,
    MicrosoftAttention => microsoft::attention::Attention,
    MicrosoftDequantizeLinear => microsoft::renamed::DEQUANTIZE_LINEAR,
    MicrosoftGatherND => microsoft::renamed::GATHER_ND,
    MicrosoftGelu => microsoft::renamed::GELU,
    MicrosoftGridSample => microsoft::renamed::GRID_SAMPLE,
    MicrosoftPad => microsoft::renamed::PAD,
    MicrosoftQLinearConv => microsoft::renamed::Q_LINEAR_CONV,
    MicrosoftQuantizeLinear => microsoft::renamed::QUANTIZE_LINEAR,
    MicrosoftRange => microsoft::movement::Range,
    MicrosoftRotaryEmbedding => microsoft::rotary_embedding::RotaryEmbedding,
    MicrosoftSimplifiedLayerNormalization => microsoft::normalization::SIMPLIFIED_OF_MICROSOFT,
    MicrosoftTrilu => microsoft::renamed::TRILU,
    MicrosoftUnique => microsoft::movement::Unique,
    Min => variadic::MIN,
    Mish => unary::MISH,
    Mod => binary::MOD,
    Momentum => optimizer::MOMENTUM,
    Mul => binary::MUL,
    MultiHeadAttention => microsoft::multi_head_attention::MultiHeadAttention,
    Multinomial => random_values::Multinomial,
    NGramRepeatBlock => microsoft::movement::NGramRepeatBlock,
    Neg => unary::NEG,
    NegativeLogLikelihoodLoss => loss::NegativeLogLikelihoodLoss,
    NhwcConv => microsoft::fused::NhwcConv,
    NonMaxSuppression => nms::NonMaxSuppression,
    NonZero => select::NonZero,
    Normalizer => ml::normalizer::Normalizer,
    Not => predicate::Not,
    OneHot => one_hot::OneHot,
    OneHotEncoder => ml::one_hot_encoder::OneHotEncoder,
    Optional => optional::Optional,
    OptionalGetElement => optional::OptionalGetElement,
    OptionalHasElement => optional::OptionalHasElement,
    Or => binary::OR,
    PRelu => binary::PRELU,
    Pad => pad::Pad,
    Pow => binary::Pow,
    QGemm => microsoft::qlinear::QGemm,
    QLinearAdd => microsoft::qlinear::ADD,
    QLinearAveragePool => microsoft::qlinear::AVERAGE_POOL,
    QLinearConcat => microsoft::qlinear::CONCAT,
    QLinearConv => integer::QLinearConv,
    QLinearGlobalAveragePool => microsoft::qlinear::GLOBAL_AVERAGE_POOL,
    QLinearLeakyRelu => microsoft::qlinear::LEAKY_RELU,
    QLinearMatMul => integer::QLinearMatMul,
    QLinearMul => microsoft::qlinear::MUL,
    QLinearSigmoid => microsoft::qlinear::SIGMOID,
    QLinearSoftmax => microsoft::qlinear::SOFTMAX,
    QLinearWhere => microsoft::qlinear::QLinearWhere,
    QuantizeLinear => quantize::QuantizeLinear,
    QuickGelu => microsoft::activation::QUICK_GELU,
    RMSNormalization => layer_normalization::RmsNormalization,
    RNN => recurrent::RNN,
    RandomNormal => random_values::NORMAL,
    RandomNormalLike => random_values::NORMAL_LIKE,
    RandomUniform => random_values::UNIFORM,
    RandomUniformLike => random_values::UNIFORM_LIKE,
    Range => range::Range,
    Reciprocal => unary::RECIPROCAL,
    ReduceL1 => reduce::L1,
    ReduceL2 => reduce::L2,
    ReduceLogSum => reduce::LOG_SUM,
    ReduceLogSumExp => reduce::LOG_SUM_EXP,
    ReduceMax => reduce::MAX,
    ReduceMean => reduce::MEAN,
    ReduceMin => reduce::MIN,
    ReduceProd => reduce::PROD,
    ReduceSum => reduce::SUM,
    ReduceSumSquare => reduce::SUM_SQUARE,
    RegexFullMatch => strings::RegexFullMatch,
    Relu => unary::RELU,
    Reshape => reshape::Reshape,
    Resize => resize::Resize,
    ReverseSequence => trilu::ReverseSequence,
    RoiAlign => roi::RoiAlign,
    RotaryEmbedding => rotary_embedding::RotaryEmbedding,
    Round => unary::ROUND,
    STFT => signal::Stft,
    SVMClassifier => ml::svm_classifier::SvmClassifier,
    SVMRegressor => ml::svm::SvmRegressor,
    Scaler => ml::scaler::Scaler,
    Scan => scan::Scan,
    Scatter => scatter::SCATTER,
    ScatterElements => scatter::SCATTER_ELEMENTS,
    ScatterND => scatter::ScatterND,
    Selu => activation::SELU,
    SequenceAt => sequence::SequenceAt,
    SequenceConstruct => sequence::SequenceConstruct,
    SequenceEmpty => sequence::SequenceEmpty,
    SequenceErase => sequence::SequenceErase,
    SequenceInsert => sequence::SequenceInsert,
    SequenceLength => sequence::SequenceLength,
    SequenceMap => sequence_tensor::SequenceMap,
    Shape => shape_of::Shape,
    Shrink => activation::SHRINK,
    Sigmoid => unary::SIGMOID,
    Sign => unary::SIGN,
    SimplifiedLayerNormalization => microsoft::normalization::SIMPLIFIED,
    Sin => unary::SIN,
    Sinh => unary::SINH,
    Size => shape_of::Size,
    SkipLayerNormalization => microsoft::normalization::SKIP_LAYER,
    SkipSimplifiedLayerNormalization => microsoft::normalization::SKIP_SIMPLIFIED,
    Slice => slice::Slice,
    Softmax => softmax::SOFTMAX,
    SoftmaxCrossEntropyLoss => loss::SoftmaxCrossEntropyLoss,
    Softplus => unary::SOFTPLUS,
    Softsign => unary::SOFTSIGN,
    SpaceToDepth => space_depth::SpaceToDepth,
    Split => split::Split,
    SplitToSequence => sequence_tensor::SplitToSequence,
    Sqrt => unary::SQRT,
    Squeeze => squeeze::Squeeze,
    StringConcat => strings::StringConcat,
    StringNormalizer => strings::StringNormalizer,
    StringSplit => strings::StringSplit,
    Sub => binary::SUB,
    Sum => variadic::SUM,
    SwiGLU => swiglu::SwiGlu,
    Swish => activation::SWISH,
    Tan => unary::TAN,
    Tanh => unary::TANH,
    TensorScatter => scatter::TensorScatter,
    TfIdfVectorizer => tf_idf::TfIdfVectorizer,
    ThresholdedRelu => activation::THRESHOLDED_RELU,
    Tile => expand::Tile,
    TopK => topk::TopK,
    Transpose => transpose::Transpose,
    TransposeMatMul => microsoft::fused::TRANSPOSE_MAT_MUL,
    TreeEnsemble => ml::tree::TreeEnsemble,
    TreeEnsembleClassifier => ml::tree::TreeEnsembleClassifier,
    TreeEnsembleRegressor => ml::tree::TreeEnsembleRegressor,
    Trilu => trilu::Trilu,
    UnfoldTensor => microsoft::movement::UnfoldTensor,
    Unique => select::Unique,
    Unsqueeze => squeeze::Unsqueeze,
    Upsample => resize::Upsample,
    Where => where_::Where,
    Xor => binary::XOR,
    ZipMap => ml::zip_map::ZipMap,
}

static BY_NAME: LazyLock<HashMap<(&'static str, &'static str), Op>> = LazyLock::new(|| {
    let key = |op: Op| op.schema().map(|s| ((s.domain, s.name), op));
    Op::ALL.iter().filter_map(|op| key(*op)).collect()
});

impl Op {
    /// The operator of this domain (`""` for `ai.onnx`) and name, whatever its version; [`Op::Opaque`] if there is
    /// none.
    pub fn lookup(domain: &str, name: &str) -> Op {
        BY_NAME.get(&(domain, name)).copied().unwrap_or(Op::Opaque)
    }
    /// The operator that a node is: of this domain, name and overload, in this opset version.
    ///
    /// [`Op::Opaque`] for a name that the opset does not have yet and for an overload (no operator has one): those
    /// are calls of a model's functions, or not known. An operator goes before a function of its name, as in ONNX's
    /// shape inference and in ONNX Runtime.
    pub fn of(domain: &str, name: &str, overload: &str, version: i64) -> Op {
        let op = Op::lookup(if domain == "ai.onnx" { "" } else { domain }, name);
        let first = op.schema().and_then(|s| s.since.first().copied()).unwrap_or(1);
        // without an opset (version 0) the node is refused, under the operator's name
        if overload.is_empty() && (version < 1 || version >= first) { op } else { Op::Opaque }
    }
    /// Whether two runs on the same inputs may differ.
    pub fn is_random(self) -> bool {
        // every operator that draws is named so; the list test holds this
        self.schema()
            .is_some_and(|s| s.name.starts_with("Random") || matches!(s.name, "Multinomial" | "Bernoulli"))
    }
    /// Whether two operands may change places.
    pub fn is_commutative(self) -> bool {
        self.is_associative() || matches!(self, Op::Equal)
    }
    /// Whether operands may be grouped and ordered at will, as functions of real numbers.
    pub fn is_associative(self) -> bool {
        use Op::{Add, And, BitwiseAnd, BitwiseOr, BitwiseXor, Max, Min, Mul, Or, Sum, Xor};
        matches!(self, Add | And | BitwiseAnd | BitwiseOr | BitwiseXor | Max | Min | Mul | Or | Sum | Xor)
    }
    /// The operator's fixed facts; `None` for [`Op::Opaque`].
    pub fn schema(self) -> Option<Schema> {
        self.operator().map(|o| o.schema())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_unique_and_ordered() {
        assert_eq!(BY_NAME.len(), Op::ALL.len(), "two operators share a name");
        for op in Op::ALL {
            let s = op.schema().unwrap();
            assert!(s.since.is_sorted() && !s.since.is_empty(), "{}", s.name);
            assert!(s.inputs.0 <= s.inputs.1 && s.outputs.0 <= s.outputs.1, "{}", s.name);
        }
    }
}
