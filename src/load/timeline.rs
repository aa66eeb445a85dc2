//! The loader's option to have a timeline.

use super::Loader;

impl Loader {
    /// Whether streams take down what their memory does, and when:
    /// [`TensorStream::timeline`](crate::TensorStream::timeline) tells it. That takes some 200 bytes
    /// for each slot that is taken.
    ///
    /// ```no_run
    /// # fn main() -> ringload::Result<()> {
    /// let mut stream = ringload::Loader::new().timeline(true).stream("/models/llama")?;
    /// for tensor in stream.by_ref() {
    ///     drop(tensor?);
    /// }
    /// for slot in stream.timeline().unwrap_or_default().slots {
    ///     println!("{} bytes by {:?}: {:?}", slot.bytes, slot.paths, slot.stages);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn timeline(mut self, timeline: bool) -> Self {
        self.timeline = timeline;
        self
    }
}
