//! `ringload hold --status`: which processes hold what.
//!
//! The processes are found by their name, and what they have locked is what the kernel says in
//! `/proc/PID/smaps`. So there is no file that could outlive a process.

use crate::failure::Outcome;
use crate::format::{self, Align};
use crate::output;
use ringload::LocationText;
use ringload::internals::shown;
use ringload_measure::system::{bytes_in, read_text};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::path::Path;

/// The name of processes that hold checkpoints.
pub const PROCESS_NAME: &CStr = c"ringload-hold";

/// What one process holds.
#[derive(Debug, Serialize)]
struct Holder {
    pid: u32,
    held_bytes: u64,
    /// `None` where this user may not see them.
    files: Option<Vec<HeldFile>>,
}

#[derive(Debug, Serialize)]
struct HeldFile {
    path: LocationText,
    held_bytes: u64,
    /// Whether the path leads to another file now, or to none.
    replaced: bool,
}

/// Prints which processes hold what.
///
/// # Errors
/// When the answer cannot be written.
pub fn print(json: bool) -> Outcome {
    let holders = holders();
    if json {
        return output::print_json(&serde_json::json!({ "holders": holders }));
    }
    output::print(|out| {
        if holders.is_empty() {
            return writeln!(out, "nothing is held");
        }
        let header = ["PID", "HELD", "FILE"].map(String::from);
        let rows: Vec<_> = std::iter::once(header).chain(holders.iter().flat_map(rows)).collect();
        format::table(out, [Align::Right, Align::Right, Align::Left], &rows)
    })
}

fn rows(holder: &Holder) -> Vec<[String; 3]> {
    let row = |bytes, text| [holder.pid.to_string(), format::size(bytes), text];
    let text = |file: &HeldFile| {
        let replaced = if file.replaced { " (replaced or removed since)" } else { "" };
        format!("{}{replaced}", shown(&file.path))
    };
    match &holder.files {
        Some(files) if files.is_empty() => vec![row(holder.held_bytes, "(none yet)".to_owned())],
        Some(files) => files.iter().map(|file| row(file.held_bytes, text(file))).collect(),
        None => vec![row(holder.held_bytes, "(files of another user)".to_owned())],
    }
}

fn holders() -> Vec<Holder> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> =
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().filter_map(holder).collect()
}

/// What the process `pid` holds; `None` if it does not hold checkpoints, or has ended.
fn holder(pid: u32) -> Option<Holder> {
    let process = Path::new("/proc").join(pid.to_string());
    let name = read_text(process.join("comm"))?;
    if name.as_bytes() != PROCESS_NAME.to_bytes() {
        return None;
    }
    let held_bytes = bytes_in(&read_text(process.join("status"))?, "VmLck:")?;
    let files = read_text(process.join("smaps")).map(|maps| files(&maps));
    Some(Holder { pid, held_bytes, files })
}

/// The files of which pages are locked, by the text of /proc/PID/smaps: a line with the path begins each
/// mapping, and lines with sizes follow.
fn files(maps: &str) -> Vec<HeldFile> {
    const DELETED: &str = " (deleted)";
    let mut locked = BTreeMap::<&str, u64>::new();
    let mut path = None;
    for line in maps.lines() {
        if let Some(bytes) = bytes_in(line, "Locked:").filter(|&bytes| bytes > 0) {
            if let Some(path) = path {
                *locked.entry(path).or_default() += bytes;
            }
        } else if line.split(' ').next().is_some_and(|word| word.contains('-')) {
            path = line.find('/').map(|start| &line[start..]);
        }
    }
    let file = |(path, held_bytes): (&str, u64)| HeldFile {
        path: LocationText::from(Path::new(path.trim_end_matches(DELETED))),
        held_bytes,
        replaced: path.ends_with(DELETED),
    };
    locked.into_iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_bytes_are_counted_for_each_file() {
        let maps = "\
7f00-7f10 r--p 00000000 fe:00 12   /models/a model.safetensors
Size:               1024 kB
Locked:             1000 kB
VmFlags: rd mr mw me lo
7f10-7f20 r--p 00100000 fe:00 12   /models/a model.safetensors
Locked:               24 kB
7f20-7f30 r--p 00000000 fe:00 13   /models/b.safetensors (deleted)
Locked:                8 kB
7f30-7f40 r-xp 00000000 fe:00 14   /usr/bin/ringload
Locked:                0 kB
7f40-7f50 rw-p 00000000 00:00 0    [heap]
Locked:                4 kB
";
        let files = files(maps);
        let seen: Vec<_> =
            files.iter().map(|f| (f.path.to_string(), f.held_bytes >> 10, f.replaced)).collect();
        let expected = [
            ("/models/a model.safetensors".to_owned(), 1024, false),
            ("/models/b.safetensors".to_owned(), 8, true),
        ];
        assert_eq!(seen, expected);
    }
}
