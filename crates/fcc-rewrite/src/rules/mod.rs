//! The rules, one file each.
mod conv_to_im2col;
mod conv_to_toeplitz;
mod conv_to_toeplitz_per_channel;
mod fold_constants;
mod layout;
mod linear_to_full_kernel;
mod linear_to_pointwise;
mod merge_duplicates;
mod merge_reshapes;
mod merge_transposes;
mod pointwise_to_matmul;
mod remove_identities;
mod sink_layout;

pub(crate) use conv_to_im2col::ConvToIm2colGemm;
pub(crate) use conv_to_toeplitz::ConvToToeplitzGemm;
pub(crate) use conv_to_toeplitz_per_channel::ConvToToeplitzGemmPerChannel;
pub(crate) use fold_constants::FoldConstants;
pub(crate) use linear_to_full_kernel::LinearToFullKernelConv;
pub(crate) use linear_to_pointwise::LinearToPointwiseConv;
pub(crate) use merge_duplicates::MergeDuplicates;
pub(crate) use merge_reshapes::MergeReshapes;
pub(crate) use merge_transposes::MergeTransposes;
pub(crate) use pointwise_to_matmul::PointwiseConvToMatmul;
pub(crate) use remove_identities::RemoveIdentities;
pub(crate) use sink_layout::{BROADCASTING, SinkLayout, UNARY};
