//! What a source is opened for.

/// What a source is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Purpose {
    /// Perhaps its header alone.
    #[default]
    Header,
    /// A load, which begins when the headers have been read.
    Load,
}
