//! Variables of Run:ai's streamer that are honoured where its interface is served: by the C library's
//! `runai_file_streamer_*` functions and by the Python package.
//!
//! Those that mean the same for every load are read elsewhere: the engines' number and the memory limit
//! in the parent, the place and style of S3 with the store. What only tunes its own readers
//! (`RUNAI_STREAMER_CHUNK_BYTESIZE`, `RUNAI_STREAMER_FS_QUEUE_DEPTH` and the like) has no counterpart.
//!
//! | variable | here |
//! | --- | --- |
//! | `RUNAI_STREAMER_OBJ_CONCURRENCY`, `RUNAI_STREAMER_CONCURRENCY` | connections to a store |
//! | `RUNAI_STREAMER_FS_STRATEGY` | the first of its list: through the page cache, or directly |

use super::ReadPath;
use crate::error::{Error, ErrorKind, Result};

/// What the variables say; `None` where one is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RunaiVariables {
    /// Connections to a store.
    pub connections: Option<usize>,
    /// How local files are read.
    pub read_path: Option<ReadPath>,
}

impl RunaiVariables {
    /// Those of `env`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput), naming the variable that cannot be read.
    pub fn read(env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        const STRATEGY: &str = "RUNAI_STREAMER_FS_STRATEGY";
        let first = ["RUNAI_STREAMER_OBJ_CONCURRENCY", "RUNAI_STREAMER_CONCURRENCY"]
            .into_iter()
            .find_map(|name| Some((name, env(name)?)));
        let connections = first.map(|(name, text)| connections(name, &text)).transpose()?;
        let strategy = env(STRATEGY)
            .map(|list| strategy(&list).map_err(|error| super::in_variable(STRATEGY, &error)));
        Ok(Self { connections, read_path: strategy.transpose()? })
    }
}

fn connections(name: &str, text: &str) -> Result<usize> {
    match text.trim().parse() {
        Ok(connections @ 1..) => Ok(connections),
        _ => {
            let sentence = format!("{name}={text}: use a number of connections, at least 1");
            Err(Error::new(ErrorKind::InvalidInput, sentence))
        }
    }
}

/// The read path that a list of strategies asks for, best first: `io_uring_direct,sync_buffered`.
///
/// The first one counts, as all of them are served: where the machine lacks one, the ladder goes down
/// by itself. Direct ones read from the page cache what is in it.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for a name that is unknown, empty or there twice.
pub(crate) fn strategy(list: &str) -> Result<ReadPath> {
    const NAMES: [(&str, ReadPath); 4] = [
        ("io_uring_direct", ReadPath::Auto),
        ("io_uring_buffered", ReadPath::Buffered),
        ("libaio_direct", ReadPath::Auto),
        ("sync_buffered", ReadPath::Buffered),
    ];
    let names: Vec<_> = list.split(',').map(str::trim).collect();
    let mut paths = Vec::with_capacity(names.len());
    for (position, name) in names.iter().enumerate() {
        let known = NAMES.iter().find(|(known, _)| known == name);
        match known.filter(|_| !names[..position].contains(name)) {
            Some((_, path)) => paths.push(*path),
            None => {
                let sentence = format!(
                    "{list:?} is no list of strategies; use each of io_uring_direct, \
                     io_uring_buffered, libaio_direct and sync_buffered at most once, with commas"
                );
                return Err(Error::new(ErrorKind::InvalidInput, sentence));
            }
        }
    }
    Ok(paths.first().copied().unwrap_or_default()) // a split is never empty
}

#[cfg(test)]
mod tests {
    use super::*;

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
