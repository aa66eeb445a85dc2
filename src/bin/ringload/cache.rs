//! `ringload cache`: lists, checks, shrinks and empties the local file cache.

use crate::failure::{Failure, Outcome};
use crate::format::{self, Align};
use crate::output;
use ringload::{
    CacheAdmin, CacheEntry, CacheSize, Checked, Error, ErrorKind, Loader, Location, LocationText,
    Pruned,
};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// List, check, shrink and empty the local file cache.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory of the cache [default: RINGLOAD_CACHE_DIR]
    #[arg(long, value_name = "DIR", global = true)]
    cache_dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the cached objects
    Ls,
    /// Read and check every cached page; corrupt pages are loaded again the next time
    Verify,
    /// Remove objects that are not in use, least recently used first, down to a size
    Prune {
        /// The size, such as 200GiB; without it, only damaged entries and leftovers are removed
        #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
        cache_size: Option<CacheSize>,
    },
    /// Remove an object, or all objects below a location
    Rm {
        /// The location that was loaded
        #[arg(value_name = "LOCATION")]
        location: String,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// When there is no cache or it cannot be read, a page is corrupt (`verify`), or the answer cannot
/// be written.
pub fn run(args: Args) -> Outcome {
    let loader = match args.cache_dir {
        Some(directory) => Loader::from_env().cache_dir(directory),
        None => Loader::from_env(),
    };
    let directory = loader.cache_directory()?.ok_or_else(|| {
        Failure::usage("no cache directory is given; give --cache-dir, or set RINGLOAD_CACHE_DIR")
    })?;
    let admin = CacheAdmin::open(directory)?;
    match args.action {
        Action::Ls => list(&admin.entries(), args.json),
        Action::Verify => verify(&admin.verify(|_| {})?, args.json),
        Action::Prune { cache_size } => {
            let most_bytes = match cache_size {
                Some(CacheSize::Bytes(bytes)) => bytes,
                _ => u64::MAX,
            };
            removed(&admin.prune(most_bytes)?, args.json)
        }
        Action::Rm { location } => {
            let location = Location::parse(&location).map_err(Failure::Usage)?;
            removed(&admin.remove(&location)?, args.json)
        }
    }
}

/// An entry as JSON, with times in seconds since 1970.
fn entry_json(entry: &CacheEntry) -> Value {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    json!({
        "location": entry.location,
        "path": LocationText::from(entry.path.as_path()),
        "bytes": entry.len_bytes,
        "present_bytes": entry.present_bytes,
        "disk_bytes": entry.disk_bytes,
        "complete": entry.is_complete,
        "validated": seconds(entry.validated),
        "last_used": seconds(entry.last_used),
    })
}

fn list(entries: &[CacheEntry], json: bool) -> Outcome {
    if json {
        let entries: Vec<_> = entries.iter().map(entry_json).collect();
        return output::print_json(&json!({ "entries": entries }));
    }
    output::print(|out| {
        use Align::{Left, Right};
        let header = ["SIZE", "PRESENT", "LAST USED", "LOCATION"].map(String::from);
        let rows: Vec<_> = std::iter::once(header).chain(entries.iter().map(row)).collect();
        format::table(out, [Right, Right, Right, Left], &rows)?;
        let disk_bytes = entries.iter().map(|entry| entry.disk_bytes).sum();
        let objects = format::count(entries.len(), "object");
        writeln!(out, "\n{objects}, {} on disk", format::size(disk_bytes))
    })
}

fn row(entry: &CacheEntry) -> [String; 4] {
    let present = match entry.is_complete {
        true => "all".to_owned(),
        false => format::size(entry.present_bytes),
    };
    let age = entry.last_used.elapsed().unwrap_or_default().as_secs_f64();
    [
        format::size(entry.len_bytes),
        present,
        format!("{} ago", format::duration(age.max(1.0))),
        entry.location.to_string(),
    ]
}

fn verify(all: &[Checked], json: bool) -> Outcome {
    if json {
        let entry = |checked: &Checked| {
            json!({
                "location": checked.entry.location,
                "checked_bytes": checked.checked_bytes,
                "corrupt_pages": checked.wrong_pages, // their offsets in bytes
            })
        };
        let entries: Vec<_> = all.iter().map(entry).collect();
        output::print_json(&json!({ "entries": entries }))?;
    } else {
        output::print(|out| all.iter().try_for_each(|checked| write_checked(out, checked)))?;
    }
    let corrupt: usize = all.iter().map(|checked| checked.wrong_pages.len()).sum();
    if corrupt > 0 {
        let sentence = format!(
            "the cache has {}, to be loaded again the next time; check the health of the disk",
            format::count(corrupt, "corrupt page")
        );
        return Err(Error::new(ErrorKind::Corrupt, sentence).into());
    }
    Ok(())
}

fn write_checked(out: &mut dyn Write, checked: &Checked) -> io::Result<()> {
    let result = match checked.wrong_pages.len() {
        0 => "ok".to_owned(),
        corrupt => format!("{} CORRUPT", format::count(corrupt, "page")),
    };
    let bytes = format::size(checked.checked_bytes);
    writeln!(out, "{bytes} {result}  {}", checked.entry.location)
}

fn removed(pruned: &Pruned, json: bool) -> Outcome {
    if json {
        return output::print_json(&json!({
            "entries": pruned.entries,
            "disk_bytes": pruned.disk_bytes,
            "left_bytes": pruned.left_bytes,
        }));
    }
    output::print(|out| {
        let objects = format::count(pruned.entries, "object");
        let (freed, left) = (format::size(pruned.disk_bytes), format::size(pruned.left_bytes));
        writeln!(out, "{objects} removed, {freed} freed; {left} left")
    })
}
