//! Variables of Run:ai Model Streamer that are honoured only by its interfaces: the C library's
//! `runai_file_streamer_*` functions and the Python package.
//!
//! Variables that apply to every load are read elsewhere: the number of engines and the memory
//! limit in `environment`, and the endpoint and addressing style of S3 by the store. Variables that
//! tune Run:ai's own readers (`RUNAI_STREAMER_CHUNK_BYTESIZE`, `RUNAI_STREAMER_FS_QUEUE_DEPTH` and
//! others) have no counterpart.
//!
//! | variable | meaning here |
//! | --- | --- |
//! | `RUNAI_STREAMER_OBJ_CONCURRENCY`, `RUNAI_STREAMER_CONCURRENCY` | connections to a store |
//! | `RUNAI_STREAMER_FS_STRATEGY` | a list whose first item selects buffered or direct reads |

use super::ReadPath;
use super::environment::{first_set, in_variable, positive};
use super::parse::invalid;
use crate::error::Result;

/// The values of the variables; `None` for a variable that is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RunaiVariables {
    /// The number of connections to a store.
    pub connections: Option<usize>,
    /// How local files are read.
    pub read_path: Option<ReadPath>,
}

impl RunaiVariables {
    /// Reads the variables of `env`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the variable that does not parse.
    pub fn read(env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        const STRATEGY: &str = "RUNAI_STREAMER_FS_STRATEGY";
        let names = ["RUNAI_STREAMER_OBJ_CONCURRENCY", "RUNAI_STREAMER_CONCURRENCY"];
        let connections = first_set(&names, &env);
        let strategy = env(STRATEGY)
            .map(|list| strategy(&list).map_err(|error| in_variable(STRATEGY, &error)));
        Ok(Self {
            connections: connections
                .map(|(name, text)| positive(name, &text, "connections"))
                .transpose()?,
            read_path: strategy.transpose()?,
        })
    }
}

/// Returns the read path for a list of strategies in order of preference, such as
/// `io_uring_direct,sync_buffered`.
///
/// Only the first strategy counts, because ringload implements all of them. If the machine does not
/// support one, the load falls back by itself. With a direct strategy, pages that are in the page
/// cache are still read from there.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if a name is unknown, empty or repeated.
pub(crate) fn strategy(list: &str) -> Result<ReadPath> {
    let names: Vec<_> = list.split(',').map(str::trim).collect();
    let path_of = |(position, name): (usize, &&str)| match *name {
        _ if names[..position].contains(name) => None,
        "io_uring_direct" | "libaio_direct" => Some(ReadPath::Auto),
        "io_uring_buffered" | "sync_buffered" => Some(ReadPath::Buffered),
        _ => None,
    };
    let paths: Option<Vec<_>> = names.iter().enumerate().map(path_of).collect();
    match paths.as_deref() {
        Some([first, ..]) => Ok(*first),
        _ => invalid(format!(
            "{list:?} is not a list of strategies; use each of io_uring_direct, io_uring_buffered, \
             libaio_direct and sync_buffered at most once, separated by commas"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn read(pairs: &[(&str, &str)]) -> Result<RunaiVariables> {
        RunaiVariables::read(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_stores_own_number_wins() {
        assert_eq!(read(&[]).unwrap(), RunaiVariables::default());
        let both = [("RUNAI_STREAMER_CONCURRENCY", "16"), ("RUNAI_STREAMER_OBJ_CONCURRENCY", "4")];
        assert_eq!(read(&both).unwrap().connections, Some(4));
        assert_eq!(read(&both[..1]).unwrap().connections, Some(16));
        for wrong in ["0", "-1", "many", ""] {
            let error = read(&[("RUNAI_STREAMER_CONCURRENCY", wrong)]).unwrap_err().to_string();
            assert!(error.starts_with("RUNAI_STREAMER_CONCURRENCY="), "{error}");
        }
    }

    #[test]
    fn the_first_strategy_counts_and_all_must_be_known() {
        for (list, path) in [
            ("sync_buffered", ReadPath::Buffered),
            (" io_uring_direct, sync_buffered ", ReadPath::Auto),
            ("io_uring_buffered,libaio_direct", ReadPath::Buffered),
        ] {
            assert_eq!(strategy(list).unwrap(), path, "{list}");
        }
        for wrong in ["", "direct", "sync_buffered,", "sync_buffered,sync_buffered"] {
            assert_eq!(strategy(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
        let error = read(&[("RUNAI_STREAMER_FS_STRATEGY", "x")]).unwrap_err().to_string();
        assert!(error.starts_with("RUNAI_STREAMER_FS_STRATEGY: "), "{error}");
    }
}
