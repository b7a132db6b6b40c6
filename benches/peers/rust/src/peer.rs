//! What the program asks of a peer.
use anyhow::Result;
use fcc_ir::Tensor;

/// A model loaded in a peer, its inputs at hand.
pub trait Peer {
    /// Runs it once and keeps the outputs.
    fn run(&mut self) -> Result<()>;
    /// The outputs of the last run, by name.
    fn outputs(&self) -> Result<Vec<(String, Tensor)>>;
}
