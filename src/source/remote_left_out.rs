//! Has the place of `remote` in a build without the feature `http`: nothing is opened or listed, and
//! the error names the feature that the location needs.

use super::cancellation::Cancellation;
use super::list_entry::{ListDepth, ListEntry};
use super::purpose::Purpose;
use super::traits::Source;
use crate::error::Result;
use crate::location::ObjectUri;
use crate::options::RemoteOptions;
use std::sync::Arc;

/// A cache of objects, of which there are none.
pub(crate) trait CacheLayer: Send + Sync {}

/// Opens no objects.
#[derive(Clone, Default)]
pub(super) struct RemoteOpener;

impl RemoteOpener {
    pub fn with_cache(self, _: Arc<dyn CacheLayer>) -> Self {
        self
    }

    pub fn cancelled_by(&self, _: &Cancellation) -> Self {
        Self
    }

    pub fn opening_for(self, _: Purpose) -> Self {
        self
    }

    pub fn renewed(&self) -> Self {
        Self
    }

    pub fn open(
        &self,
        _: &RemoteOptions,
        uri: &ObjectUri,
        _verify: bool,
        _allows_unverified_files: bool,
    ) -> Result<Arc<dyn Source>> {
        Err(uri.scheme().left_out())
    }

    pub fn list(&self, _: &RemoteOptions, directory: &ObjectUri) -> Result<Option<Vec<String>>> {
        Err(directory.scheme().left_out())
    }

    pub fn entries(
        &self,
        _: &RemoteOptions,
        directory: &ObjectUri,
        _: ListDepth,
    ) -> Result<Option<Vec<ListEntry>>> {
        Err(directory.scheme().left_out())
    }

    pub fn actual(&self, _: &RemoteOptions, uri: &ObjectUri) -> Result<ObjectUri> {
        Err(uri.scheme().left_out())
    }
}
