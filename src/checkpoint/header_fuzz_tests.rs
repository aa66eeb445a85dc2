//! A campaign of random files, compared with the `safetensors` crate: `tests/fuzz.sh` runs 1e8.
//!
//! A seed determines a draft of a valid header, then changes of its structure (values of other types,
//! repeated keys, numbers beyond their bounds, gaps, overlaps, escapes, nesting), then changes of
//! single bytes, and then of the lengths. One file in four is left valid, and many changes leave it
//! valid, so that both verdicts are compared.

use super::agreement::{Agreement, assert_agreement, is_scanned};
use crate::dtype::Dtype;
use crate::test_fuzz::{campaign, mutate_bytes, pick};
use fastrand::Rng;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Values in the place of others. `#` stands for deep nesting and `$` for a long text.
const VALUES: [&str; 44] = [
    "null",
    "true",
    "0",
    "1",
    "2",
    "8",
    "16",
    "-1",
    "-0",
    "0.0",
    "1.0",
    "1.5",
    "1e0",
    "1E2",
    "1e400",
    "00",
    "01",
    "+1",
    "0x10",
    "4294967296",
    "2305843009213693951",
    "2305843009213693952",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "100000000000000000000000000000",
    "\"F32\"",
    "\"f32\"",
    "\"\\u00461\\u0036\"",
    "\"BOOL\"",
    "\"\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\\u0000\\n\"",
    "\"\u{202e}x\"",
    "[]",
    "[0]",
    "[0,0]",
    "[0,0,0]",
    "[\"0\",\"1\"]",
    "{\"F32\":null}",
    "{}",
    "#",
    "$",
];

/// Names, as JSON.
const NAMES: [&str; 12] = [
    "\"a\"",
    "\"b\"",
    "\"model.layers.0.mlp.up_proj.weight\"",
    "\"\"",
    "\"\\u0061\"",
    "\"\\\"\\\\\\/\"",
    "\"\u{e9}\u{1f600}\"",
    "\"__metadata__\"",
    "\"__metadata_\\u005f\"",
    "\"dtype\"",
    "\"\\u202e\\t\"",
    "$",
];

const FIELDS: [&str; 10] = [
    "\"dtype\"",
    "\"shape\"",
    "\"data_offsets\"",
    "\"d\\u0074ype\"",
    "\"Dtype\"",
    "\"data_offset\"",
    "\"\"",
    "\"x\"",
    "\"shape\\u0000\"",
    "0",
];

/// The entry of a tensor, or the metadata: a key and the fields of its value, all as JSON.
#[derive(Clone)]
struct Entry {
    key: String,
    fields: Vec<(String, String)>,
    /// The value instead of the fields.
    value: Option<String>,
}

struct Draft {
    entries: Vec<Entry>,
    /// The bytes of data after the header.
    data_bytes: usize,
}

/// One of the `choices`, written out.
fn fragment(rng: &mut Rng, choices: &[&str]) -> String {
    match pick(rng, choices) {
        "#" => {
            // serde_json has a limit of 128 levels.
            let depth = *[3, 120, 124, 125, 126, 127, 128, 129, 5000].get(rng.usize(..9)).unwrap();
            format!("{}{}", "[".repeat(depth), "]".repeat(depth))
        }
        "$" => format!("\"{}\"", pick(rng, &["x", "\\n", "\u{e9}"]).repeat(rng.usize(..9000))),
        other => other.to_owned(),
    }
}

impl Draft {
    /// The draft of a file, which mostly is valid.
    fn valid(rng: &mut Rng) -> Self {
        let (mut entries, mut end) = (Vec::new(), 0_usize);
        for number in 0..[0, 1, 1, 2, 2, 3, 4, 7][rng.usize(..8)] {
            let dtype = Dtype::ALL[rng.usize(..Dtype::ALL.len())];
            let mut shape: Vec<_> =
                (0..rng.u8(..4)).map(|_| [0, 1, 1, 2, 3, 4][rng.usize(..6)]).collect();
            if dtype.bitsize() < 8 {
                shape.push(4);
            }
            // A hole or an overlap, after which everything fits again.
            let begin = match rng.u8(..48) {
                0 => end + 1,
                1 => end.saturating_sub(1),
                _ => end,
            };
            end = begin + shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let mut key = fragment(rng, &NAMES[..7]);
            key.insert_str(1, &number.to_string());
            let fields = [
                ("\"dtype\"", format!("\"{dtype}\"")),
                ("\"shape\"", format!("{shape:?}")),
                ("\"data_offsets\"", format!("[{begin},{end}]")),
            ];
            let fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
            entries.push(Entry { key, fields, value: None });
        }
        if rng.u8(..3) == 0 {
            let fields =
                (0..rng.usize(..3)).map(|n| (format!("\"k{n}\""), fragment(rng, &VALUES[26..30])));
            let fields = fields.collect();
            let metadata = Entry { key: "\"__metadata__\"".to_owned(), fields, value: None };
            entries.insert(rng.usize(..=entries.len()), metadata);
        }
        if rng.bool() {
            rng.shuffle(&mut entries);
        }
        Self { entries, data_bytes: end }
    }

    /// Changes the structure in one place.
    fn mutate(&mut self, rng: &mut Rng) {
        if self.entries.is_empty() {
            let (key, value) = (fragment(rng, &NAMES), Some(fragment(rng, &VALUES)));
            return self.entries.push(Entry { key, fields: Vec::new(), value });
        }
        let at = rng.usize(..self.entries.len());
        match rng.u8(..8) {
            0 => self.entries[at].key = fragment(rng, &NAMES),
            1 => self.entries[at].value = Some(fragment(rng, &VALUES)),
            2 => {
                // Another entry of the same name or value.
                let mut again = self.entries[at].clone();
                if rng.bool() {
                    again.key = fragment(rng, &NAMES);
                }
                self.entries.insert(rng.usize(..=self.entries.len()), again);
            }
            3 => drop(self.entries.remove(at)),
            4 => {
                // The values alone, as an array.
                let values: Vec<_> =
                    self.entries[at].fields.iter().map(|(_, value)| &**value).collect();
                self.entries[at].value = Some(format!("[{}]", values.join(",")));
            }
            _ => mutate_fields(rng, &mut self.entries[at].fields),
        }
    }

    /// The text, in one of the ways to write it.
    fn text(&self, rng: &mut Rng) -> String {
        let space = pick(rng, &["", "", "", " ", "\n\t"]);
        let starts: &[&str] = &["{", "{ ", " {", "\u{feff}{", "[{"];
        let mut text = if rng.u8(..8) == 0 { pick(rng, starts) } else { "{" }.to_owned();
        for (number, entry) in self.entries.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let _ = write!(text, "{comma}{space}{}:{space}", entry.key);
            if let Some(value) = &entry.value {
                text.push_str(value);
                continue;
            }
            let fields = entry.fields.iter().map(|(name, value)| format!("{name}{space}:{value}"));
            let _ = write!(text, "{{{}}}", fields.collect::<Vec<_>>().join(","));
        }
        let ends: &[&str] = &["}   ", "}\n", "}\0", "}{}", "}]", ",}", ""];
        text + if rng.u8(..8) == 0 { pick(rng, ends) } else { "}" }
    }
}

/// Changes one of the fields, or their number and order.
fn mutate_fields(rng: &mut Rng, fields: &mut Vec<(String, String)>) {
    if fields.is_empty() {
        return fields.push((fragment(rng, &FIELDS), fragment(rng, &VALUES)));
    }
    let at = rng.usize(..fields.len());
    match rng.u8(..8) {
        0 => fields[at].0 = fragment(rng, &FIELDS),
        1 => fields[at].1 = fragment(rng, &VALUES),
        2 => drop(fields.remove(at)),
        3 => {
            let mut again = fields[at].clone();
            if rng.bool() {
                again.1 = fragment(rng, &VALUES);
            }
            fields.push(again);
        }
        4 => fields.push((fragment(rng, &FIELDS), fragment(rng, &VALUES))),
        5 => rng.shuffle(fields),
        _ => fields[at].1 = other_number(rng, &fields[at].1),
    }
}

/// `text` with one of its numbers changed: by one, to a bound, or to another value.
fn other_number(rng: &mut Rng, text: &str) -> String {
    let is_number = |part: &&str| part.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    let mut parts: Vec<_> = text.split_inclusive([',', '[', ' ']).map(str::to_owned).collect();
    let numbers: Vec<_> = (0..parts.len()).filter(|&at| is_number(&&*parts[at])).collect();
    let Some(&at) = numbers.get(rng.usize(..=numbers.len())) else { return text.to_owned() };
    let digits = parts[at].bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = parts[at][..digits].parse().unwrap_or_default();
    let other = match rng.u8(..4) {
        0 => number.wrapping_add(1).to_string(),
        1 => number.wrapping_sub(1).to_string(),
        2 => fragment(rng, &VALUES),
        _ => rng.u64(..20).to_string(),
    };
    parts[at].replace_range(..digits, &other);
    parts.concat()
}

fn file(rng: &mut Rng) -> Vec<u8> {
    let mut draft = Draft::valid(rng);
    (0..[0, 0, 0, 1, 1, 1, 2, 3][rng.usize(..8)]).for_each(|_| draft.mutate(rng));
    let mut header = draft.text(rng).into_bytes();
    if rng.u8(..4) == 0 {
        mutate_bytes(rng, &mut header);
    }
    let mut header_bytes = header.len() as u64;
    match rng.u8(..64) {
        0 => header_bytes = rng.u64(..),
        1 => header_bytes = header_bytes.wrapping_add_signed(rng.i64(-9..9)),
        2 => header_bytes = 100_000_000 + rng.u64(..2),
        3 => draft.data_bytes = rng.usize(..200),
        _ => {}
    }
    let mut file = header_bytes.to_le_bytes().to_vec();
    file.append(&mut header);
    file.resize(file.len() + draft.data_bytes, 0);
    if rng.u8(..32) == 0 {
        file.truncate(rng.usize(..=file.len()));
    }
    file
}

#[test]
fn random_files_are_judged_as_the_crate_judges_them() {
    let counts = [const { AtomicU64::new(0) }; 3];
    let scanned = AtomicU64::new(0);
    let files = campaign("headers", 5000, file, |bytes| {
        scanned.fetch_add(u64::from(is_scanned(bytes)), Ordering::Relaxed);
        counts[assert_agreement(bytes) as usize].fetch_add(1, Ordering::Relaxed);
    });
    let [accepted, refused, exceptions] = counts.map(AtomicU64::into_inner);
    let scanned = scanned.into_inner();
    eprintln!(
        "headers: {accepted} accepted ({scanned} by the quick parser), {refused} refused, \
         {exceptions} exceptions"
    );
    assert_eq!(Agreement::Exception as usize, 2);
    // A campaign of files that are all refused for the same reason would show nothing.
    if files >= 5000 {
        assert!(
            accepted > files / 10 && refused > files / 10,
            "{accepted} of {files} are accepted"
        );
        assert!(
            scanned > accepted / 3 && scanned < accepted,
            "the quick parser accepts {scanned} of {accepted}"
        );
        assert!(exceptions > files / 1000 && exceptions < files / 5, "{exceptions} of {files}");
    }
}
