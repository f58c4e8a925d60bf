//! What is asked of a vendor's collective library in a group of one device, and what its all-reduces came to.
//!
//! One rank moves nothing over a link: it shows that the library opens, forms a group, queues beside the device's own work
//! and leaves every bit right. Refuses to be a measure of any link.

use super::within::Element;
use hallmark_profiles::units::Bytes;

/// All-reduces of one kind over one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alone {
    pub element: Element,
    pub bytes: Bytes,
    pub in_place: bool,
    /// Inputs change with each.
    pub iterations: u32,
    pub seed: u64,
}

/// What they came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AloneDone {
    /// Device time of each, from the event before it to the event behind it, in ns.
    pub reduce_ns: Vec<u64>,
    /// Elements whose bits are not those of the input, over all.
    pub wrong: u64,
    /// Which library it was, and what was asked of it.
    pub facts: Vec<(String, String)>,
}
