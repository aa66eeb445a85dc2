//! Headers read in pieces, compared with the parser of any form.

use super::super::header::parse;
use super::super::json::metadata_at_start;
use super::super::tensor_info::TensorInfo;
use super::super::tests::entry;
use super::*;
use crate::checksum::crc64_nvme_of_parts;
use std::ops::Range;

/// What a header says: its tensors in order, its metadata, and its checksum.
type Read = (Vec<TensorInfo>, BTreeMap<String, String>, u64);

fn contents(header: ScannedHeader) -> Read {
    let tensors = header.tensors.into_iter().flat_map(|part| part.tensors).collect();
    (tensors, header.metadata, crc64_nvme_of_parts(header.crcs))
}

/// Reads `text` in up to `pieces` pieces. Panics where both parsers accept it and differ, or `scan`
/// alone accepts it. Returns what `scan` reads.
pub(in super::super) fn scanned(text: &[u8], data_bytes: u64, pieces: usize) -> Option<Read> {
    let (keys, data_offset_bytes) = (NameKeys::default(), 8 + text.len() as u64);
    let place = HeaderPlace { shard: 3, data_offset_bytes, data_bytes, keys: &keys };
    let in_memory = HeaderText::Read(text.into());
    let scanned = scan(&in_memory, pieces, 1, &place).unwrap().map(contents);
    let read = |range: Range<usize>| Ok(text[range].to_vec());
    let by_parts = HeaderText::Parts(text.len(), Box::new(read));
    assert_eq!(scan(&by_parts, pieces, 1, &place).unwrap().map(contents), scanned);
    let scanned = scanned?;
    match parse(text, &place) {
        Ok(parsed) => assert_eq!(scanned, contents(parsed), "{pieces} pieces"),
        Err(reason) => panic!("only scan accepts it, in {pieces} pieces: {reason}"),
    }
    Some(scanned)
}

/// As [`scanned`], in any number of pieces, which have to agree.
pub(in super::super) fn scanned_in_pieces(text: &[u8], data_bytes: u64) -> Option<Read> {
    let whole = scanned(text, data_bytes, 1);
    for pieces in [2, 3, 8] {
        // A piece may be cut within a name, which leaves the text to the other parser.
        if let Some(cut) = scanned(text, data_bytes, pieces) {
            assert_eq!(Some(cut), whole, "{pieces} pieces");
        }
    }
    whole
}

/// A header of `count` tensors of 4 bytes, in the order of `number`.
fn header(count: u64, number: impl Fn(u64) -> u64) -> String {
    let tensor = |i| {
        let at = 4 * number(i);
        entry(&format!("layers.{i}.\u{e9}"), "BF16", "[1, 2]", at, at + 4)
    };
    let entries: Vec<_> = (0..count).map(tensor).collect();
    format!("{{{}}}", entries.join(","))
}

/// A header in the form that writers use is read without the slow parser, however it is cut.
#[test]
fn usual_headers_are_read_in_any_number_of_pieces() {
    let metadata = r#"{"__metadata__":{"format":"pt","\"},{\"":"{\"},\"\n"},"#;
    let ordered = header(100, |i| i);
    let with_metadata = ordered.replacen('{', metadata, 1);
    let (end, at_end) = (r#","__metadata__":null } "#, ordered.strip_suffix('}').unwrap());
    let at_end = format!("{at_end}{end}");
    let spaced = ordered.replace(':', " : ").replace(',', " ,\n\t").replace('[', "[ ");
    let reversed = header(100, |i| 99 - i);
    for text in [&ordered, &with_metadata, &at_end, &spaced, &reversed] {
        for pieces in [1, 2, 3, 7, 100, 1000] {
            let read = scanned(text.as_bytes(), 400, pieces);
            let (tensors, ..) = read.unwrap_or_else(|| panic!("{pieces} pieces of {text}"));
            assert_eq!(tensors.len(), 100);
            let offsets =
                tensors.windows(2).map(|two| (two[0].offset_bytes(), two[1].offset_bytes()));
            assert!(offsets.into_iter().all(|(one, next)| one + 4 == next), "{text}");
        }
        assert!(scanned(text.as_bytes(), 401, 2).is_none(), "the data has another length");
    }
    for text in ["{}", "{ } \n"] {
        assert!(scanned(text.as_bytes(), 0, 4).is_some(), "{text}");
    }
}

/// A name may end in the characters at which a text is cut. The piece after that begins within a name,
/// and what is read of it must not count.
#[test]
fn a_cut_within_a_name_is_noticed() {
    let name = "x},";
    let filler = |i: u64| entry(&format!("{i}"), "U8", "[1]", i, i + 1);
    for before in 0..4 {
        let mut entries: Vec<_> = (0..before).map(filler).collect();
        entries.push(entry(name, "U8", "[1]", before, before + 1));
        entries.extend((before + 1..5).map(filler));
        let text = format!("{{{}}}", entries.join(","));
        for pieces in 1..20 {
            let read = scanned(text.as_bytes(), 5, pieces);
            assert!(read.is_none_or(|(tensors, ..)| tensors.len() == 5));
        }
        assert!(scanned(text.as_bytes(), 5, 1).is_some());
    }
    // Here everything after the cut, a whole entry, lies within a name that is never closed.
    let inner = entry("b", "U8", "[1]", 1, 2).replace('"', "\u{201d}");
    let text = format!(r#"{{{},"x}},{inner}}}"#, entry("a", "U8", "[1]", 0, 1));
    assert!((1..20).all(|pieces| scanned(text.as_bytes(), 2, pieces).is_none()));
}

/// These are left to the other parser, which accepts some of them and explains the others.
#[test]
fn unusual_headers_are_left_to_the_other_parser() {
    let good = entry("a", "U8", "[1]", 0, 1);
    let twice = |field: &str| good.replacen('{', &format!("{{{field},"), 1);
    for entries in [
        good.replace("\"a\"", "\"\\u0061\""),
        good.replace("U8", "\\u00558"),
        good.replace("U8", "U9"),
        good.replace("\"a\"", "\"\n\""),
        good.replace("[1]", "[01]"),
        good.replace("[1]", "[1,]"),
        good.replace("[1]", "[-1]"),
        good.replace("[1]", "[1.0]"),
        good.replace("[1]", "[0000000000000000001]"),
        good.replace("[1]", "[18446744073709551617]"),
        good.replace("[0,1]", "[0,1,2]"),
        good.replace("[0,1]", "[1,0]"),
        good.replace("[0,1]", "[0]"),
        good.replace("}", ",}"),
        good.replace("}", ",\"x\":0}"),
        twice("\"dtype\":\"U8\""),
        twice("\"shape\":[1]"),
        twice("\"data_offsets\":[0,1]"),
        good.replace("\"shape\":[1],", ""),
        format!("{good},"),
        format!(",{good}"),
        format!("{good}}}"),
        format!("{good},\"__metadata__\":{{}},\"__metadata__\":{{}}"),
        format!("{good},\"__metadata__\":{{\"a\":1}}"),
        format!("{good},\"__metadata__\":{{\"a\":\"1\",\"a\":\"1\"}}"),
        format!("\"__metadata__\":{{}}{good}"),
        good.replace(":{", ":["),
    ] {
        let text = format!("{{{entries}}}");
        for pieces in [1, 4] {
            assert!(scanned(text.as_bytes(), 1, pieces).is_none(), "{text}");
        }
    }
    for text in [
        String::new(),
        format!("{{{good},"),
        format!("{{{good}, "),
        format!("{{{good}}}\0"),
        format!("{{{good}"),
        format!(" {{{good}}}"),
    ] {
        assert!(scanned(text.as_bytes(), 1, 1).is_none(), "{text}");
    }
    assert!(
        scanned(b"{\"\xff\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, 1)
            .is_none()
    );
    assert_eq!(metadata_at_start("{} x").map(|(_, len)| len), Some(2));
}

/// Words of eight bytes hide where in them a string ends.
#[test]
fn a_string_ends_at_the_first_byte_that_is_not_plain() {
    let ends = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    let bytes = || (0..=u8::MAX).map(|byte| byte ^ 0x55);
    for len in 0..24 {
        for (byte, next) in bytes().zip(bytes().skip(1)) {
            let text =
                [&b"~ !#[]\x7f\xffabcdefghijklmnopqrstuvwxyz"[..len], &[byte, next]].concat();
            let expected = text.iter().position(ends).unwrap_or(text.len());
            assert_eq!(plain_len(&text), expected, "{text:?}");
        }
    }
}
