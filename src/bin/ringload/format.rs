//! Readable numbers and tables: sizes in powers of two, speeds in powers of ten.

use ringload::internals::{Escaped, parse_bytes};
use std::io::{self, Write};

const BYTES_PER_GIGABYTE: f64 = 1e9;
/// How much of a name and of a shape is shown, as in errors. A file may hold a name of 100 MB, and a
/// table is as wide as its widest cell.
const NAME_CHARS_MAX: usize = 200;
const DIMENSIONS_MAX: usize = 16;
/// Cells are padded to at most this many characters. `format!` panics above 65,535.
const PADDED_CHARS_MAX: usize = 4 * NAME_CHARS_MAX;
const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/// `bytes` in the largest unit (KiB, MiB, GiB, ...) that makes it at least 1.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // From 1023.995 on, the value would be printed as 1024.00.
    while value >= 1023.995 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

/// A speed in GB/s (10^9 bytes a second).
pub fn speed(gigabytes_per_second: f64) -> String {
    format!("{gigabytes_per_second:.2} GB/s")
}

/// `bytes` per `seconds` in units of 10^9 bytes a second; 0 if `seconds` is 0.
pub fn gigabytes_per_second(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 / seconds / BYTES_PER_GIGABYTE } else { 0.0 }
}

/// A duration in a suitable unit: `850 us`, `12.3 ms`, `1.62 s`, `2 min 05 s`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.2} s"),
        s => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
    }
}

/// `count` with its noun: `1 tensor`, `2 tensors`.
pub fn count(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// A shape as `[2, 3]`; `[]` for a scalar. Cut after [`DIMENSIONS_MAX`] dimensions.
pub fn shape(dimensions: &[usize]) -> String {
    let shown = dimensions.iter().take(DIMENSIONS_MAX).map(usize::to_string);
    let more = (dimensions.len() > DIMENSIONS_MAX).then(|| "...".to_owned());
    format!("[{}]", shown.chain(more).collect::<Vec<_>>().join(", "))
}

/// A name from a file, with its control characters escaped. Cut after [`NAME_CHARS_MAX`] characters.
pub fn name(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        None => Escaped(name).to_string(),
        Some((end, _)) => format!("{}...", Escaped(&name[..end])),
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The alignment of a column of a [`table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Writes rows in columns as wide as their widest cell (up to [`PADDED_CHARS_MAX`]), two spaces apart.
///
/// # Errors
/// The errors of `out`.
pub fn table<const N: usize>(
    out: &mut dyn Write,
    columns: [Align; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().min(PADDED_CHARS_MAX).max(*width);
        }
    }
    for row in rows {
        writeln!(out, "{}", table_line(columns, widths, row).trim_end())?;
    }
    Ok(())
}

fn table_line<const N: usize>(columns: [Align; N], widths: [usize; N], row: &[String]) -> String {
    let cells =
        columns.into_iter().zip(widths).zip(row).map(|((align, width), cell)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
    cells.collect::<Vec<_>>().join("  ")
}

/// Parses an option that is a number of bytes, such as `4GiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let refuse = || "use bytes, such as 4000000000, 512MiB or 4GiB".into();
    parse_bytes(text, refuse).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.00 KiB");
        assert_eq!(size(1536 << 10), "1.50 MiB");
        assert_eq!(size(4 << 30), "4.00 GiB");
        assert_eq!(size(u64::MAX), "16384.00 PiB");
    }

    #[test]
    fn a_size_is_never_printed_as_1024_of_its_unit() {
        assert_eq!(size((1 << 20) - 1), "1.00 MiB");
        assert_eq!(size((1 << 30) - 1), "1.00 GiB");
        assert_eq!(size(1023 << 10), "1023.00 KiB");
    }

    #[test]
    fn speeds_are_powers_of_ten() {
        assert_eq!(speed(gigabytes_per_second(5_300_000_000, 2.0)), "2.65 GB/s");
        assert_eq!(gigabytes_per_second(1, 0.0), 0.0);
    }

    #[test]
    fn durations_get_finer_as_they_get_shorter() {
        assert_eq!(duration(0.00085), "850 us");
        assert_eq!(duration(0.0123), "12.3 ms");
        assert_eq!(duration(1.618), "1.62 s");
        assert_eq!(duration(125.4), "2 min 05 s");
    }

    #[test]
    fn nouns_agree_with_their_number() {
        assert_eq!(count(0, "tensor"), "0 tensors");
        assert_eq!(count(1, "tensor"), "1 tensor");
        assert_eq!(count(291, "tensor"), "291 tensors");
    }

    #[test]
    fn shapes_and_digests() {
        assert_eq!(shape(&[]), "[]");
        assert_eq!(shape(&[2, 3]), "[2, 3]");
        assert!(shape(&[1; 20_000]).ends_with(", 1, ...]"));
        assert_eq!(hex(&[0x00, 0x1f, 0xff]), "001fff");
    }

    #[test]
    fn a_table_lines_up_and_leaves_no_trailing_space() {
        let row = |cells: [&str; 3]| cells.map(String::from);
        let rows = [row(["a", "10", "x"]), row(["long", "1", ""])];
        let mut out = Vec::new();
        table(&mut out, [Align::Left, Align::Right, Align::Left], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a     10  x\nlong   1\n");
    }

    #[test]
    fn sizes_are_bytes_and_nothing_else() {
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        assert!(parse_size("min").is_err());
        assert!(parse_size("unlimited").is_err());
        assert!(parse_size("large").is_err());
    }
}
