//! Options for the files of a checkpoint's directory and for its index.

/// How the files of a checkpoint are chosen, and whether its index has to be exact.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckpointOptions {
    /// Read every `*.safetensors` file of a directory, without its index.
    pub all_files: bool,
    /// Read the files of this variant, such as `fp16`.
    pub variant: Option<String>,
    /// Refuse an index that names a tensor which is not in the shard that the index says.
    pub strict: bool,
}
