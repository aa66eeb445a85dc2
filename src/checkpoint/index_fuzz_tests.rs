//! A campaign of random indexes, compared with the same text read as any JSON value.

use super::*;
use crate::checkpoint::text::Shortened;
use crate::test_fuzz::{campaign, mutate_bytes, pick};
use fastrand::Rng;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering as AtomicOrdering};

const FILES: [&str; 14] = [
    "\"model-00001-of-00002.safetensors\"",
    "\"model-00002-of-00002.safetensors\"",
    "\"sub/./a.safetensors\"",
    "\"./a\"",
    "\"..\"",
    "\"sub/../../a\"",
    "\"/etc/passwd\"",
    "\"\\u002e\\u002e/a\"",
    "\"\"",
    "\"a\\u0000\"",
    "\"\u{202e}\\n\"",
    "null",
    "7",
    "[\"a\"]",
];

fn index(rng: &mut Rng) -> Vec<u8> {
    let file_choices = if rng.bool() { &FILES[..4] } else { &FILES[..] };
    let entries: Vec<_> = (0..rng.usize(..6))
        .map(|number| {
            let name = if rng.u8(..12) == 0 { "t".to_owned() } else { format!("t{number}") };
            format!("\"{name}\":{}", pick(rng, file_choices))
        })
        .collect();
    let map = format!("{{{}}}", entries.join(","));
    let metadata = pick(rng, &["", "\"metadata\":{\"total_size\":1},", "\"metadata\":[[1.5e3]],"]);
    let again = if rng.u8(..16) == 0 { ",\"weight_map\":{}" } else { "" };
    let mut text = format!("{{{metadata}\"weight_map\":{map}{again}}}").into_bytes();
    if rng.u8(..3) == 0 {
        mutate_bytes(rng, &mut text);
    }
    text
}

/// The tensors of an index and their files, read in another way; `None` if the text is no index.
fn by_value(text: &str) -> Option<Vec<(String, String)>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let pair = |(name, file): (&String, &Value)| Some((name.clone(), file.as_str()?.to_owned()));
    value.get("weight_map")?.as_object()?.iter().map(pair).collect()
}

/// Whether the text may have an object with two values of one key. Keys of these indexes are distinct
/// and no values, unless they are changed.
fn has_repeated_keys(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let keys = value.as_object().map_or(0, serde_json::Map::len);
    let tensors = value["weight_map"].as_object().map_or(0, serde_json::Map::len);
    let nested = value["metadata"].as_object().map_or(0, serde_json::Map::len);
    // Each key of the text is followed by a colon, and some strings have one too.
    text.matches(':').count() > keys + tensors + nested
}

/// Whether the text is accepted. Panics if that is wrong.
fn judge(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let expected = by_value(text);
    let weight_map = match json::parse_index(text) {
        Ok(weight_map) => weight_map,
        Err(error) => {
            let error = Shortened(error).to_string();
            assert!(error.len() < 4096 && !error.contains(|c: char| c.is_control()), "{error:?}");
            // Of a key that occurs twice, serde_json's value has the last one.
            let is_repeated = has_repeated_keys(text);
            assert!(expected.is_none() || is_repeated, "only we refuse it: {error}");
            return false;
        }
    };
    let expected = expected.expect("only we accept it");
    let index = Index { location: Path::new("/dir/m.safetensors.index.json").into(), weight_map };
    let mut found: Vec<_> = index
        .tensors()
        .map(|(name, shard)| (name.to_owned(), index.weight_map.shards[shard].to_string()))
        .collect();
    let distinct: HashSet<_> = found.iter().map(|(name, _)| name.clone()).collect();
    if distinct.len() == found.len() {
        found.sort();
        assert_eq!(found, expected);
    }
    let Err(refusal) = index.check_file_names() else {
        for (location, _) in index.files() {
            let Location::File(path) = location else { panic!("{location} is no file") };
            let stays = path.starts_with("/dir/")
                && path.components().all(|part| part != Component::ParentDir);
            assert!(stays, "{path:?}");
        }
        return true;
    };
    assert!(!refusal.to_string().contains(|c: char| c.is_control()), "{refusal:?}");
    false
}

#[test]
fn random_indexes_are_read_right_and_stay_in_their_directory() {
    let accepted = AtomicU64::new(0);
    let indexes = campaign("indexes", 5000, index, |bytes| {
        accepted.fetch_add(judge(bytes).into(), AtomicOrdering::Relaxed);
    });
    let accepted = accepted.into_inner();
    assert!(indexes < 5000 || (indexes / 10..indexes / 10 * 9).contains(&accepted), "{accepted}");
}
