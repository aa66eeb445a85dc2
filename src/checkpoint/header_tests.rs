//! Every way in which a header can be wrong.

use super::super::tests::{entry, file_of, open_bytes, open_memory};
use crate::error::ErrorKind;
use crate::source::memory::MemorySource;
use safetensors::SafeTensors;

/// The error of opening `bytes` as `model.safetensors`, without the name of the file.
fn fact(bytes: Vec<u8>) -> String {
    let error = open_bytes(bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidCheckpoint, "{error}");
    error.to_string().strip_prefix("model.safetensors: ").unwrap().to_owned()
}

/// As [`fact`], for a header whose text is wrong. The sentence ends with the remedy, which is left out.
fn fact_of_text(bytes: Vec<u8>) -> String {
    let fact = fact(bytes);
    if fact.ends_with("was its download finished?") {
        return fact;
    }
    let remedy = "; download the file again, or write it again with the safetensors library";
    fact.strip_suffix(remedy).unwrap_or_else(|| panic!("no remedy: {fact}")).to_owned()
}

fn a(rest: &str) -> String {
    format!(r#"{{"a":{rest}}}"#)
}

#[test]
fn wrong_lengths() {
    let length = |length: u64, rest: usize| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.resize(8 + rest, b' ');
        bytes
    };
    for (bytes, expected) in [
        (vec![], "the file is empty; was its download finished?"),
        (
            vec![1],
            "the file has 1 byte, too few for the 8 bytes that a safetensors file begins with; \
             was its download finished?",
        ),
        (
            vec![0; 7],
            "the file has 7 bytes, too few for the 8 bytes that a safetensors file begins with; \
             was its download finished?",
        ),
        (
            length(0, 0),
            "the header is empty; the shortest valid header is {}; download the file again, or \
             write it again with the safetensors library",
        ),
        (
            length(3, 2),
            "the first 8 bytes give a header of 3 bytes, but 2 bytes follow; the file is \
             truncated or not a safetensors file",
        ),
        (
            length(100_000_001, 2),
            "the first 8 bytes give a header of 95.37 MiB (100000001 bytes), above the limit of \
             95.37 MiB (100000000 bytes); it is not a safetensors file",
        ),
        (
            length(1 << 63, 2),
            "the first 8 bytes give a header of 8192 PiB, above the limit of \
             95.37 MiB (100000000 bytes); it is not a safetensors file",
        ),
        (
            length(u64::MAX, 2),
            "the first 8 bytes give a header of 16384.00 PiB (18446744073709551615 bytes), \
             above the limit of 95.37 MiB (100000000 bytes); it is not a safetensors file",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1".to_vec(),
            "the first 8 bytes give a header of 2075.61 PiB (2336927755350992246 bytes), \
             above the limit of 95.37 MiB (100000000 bytes); it looks like a Git LFS pointer: fetch the file itself with git lfs pull",
        ),
    ] {
        assert_eq!(fact(bytes), expected);
    }
    for (start, word) in [
        (b"PK\x03\x04xxxxxxxx", "zip"),
        (b"\x80\x02xxxxxxxxxx", "pickle"),
        (b"GGUFxxxxxxxx", "GGUF"),
        (b"{\"metadata\":", ".safetensors.index.json"),
        (b"<!DOCTYPE ht", "web page"),
    ] {
        assert!(fact(start.to_vec()).contains(word));
    }
}

#[test]
fn wrong_text() {
    for (header, expected) in [
        (&b" {}"[..], "the header begins with ' ' instead of '{'"),
        (b"[]", "the header begins with '[' instead of '{'"),
        (b"{\"a\xff\":1}", "the header is not UTF-8 at byte 3 of the header"),
        (b"{", "the header is invalid: EOF while parsing an object at line 1 column 1"),
        (b"{}}", "the header is invalid: trailing characters at line 1 column 3"),
        (b"{}\0", "the header is invalid: trailing characters at line 1 column 3"),
        (
            br#"{"__metadata__":{"k":1}}"#,
            "the header is invalid: \"__metadata__\": \"k\": invalid type: integer `1`, expected \
             a string at line 1 column 22",
        ),
        (
            br#"{"__metadata__":{"k":"1","k":"1"}}"#,
            "the header is invalid: \"__metadata__\": \"k\" occurs twice at line 1 column 28",
        ),
        (
            br#"{"__metadata__":{},"__metadata__":{}}"#,
            "the header is invalid: \"__metadata__\" occurs twice in the header at line 1 column 33",
        ),
    ] {
        assert_eq!(fact_of_text(file_of(header, 0)), expected);
    }
}

#[test]
fn wrong_entries() {
    let dtype = r#""dtype":"U8""#;
    for (entry, expected) in [
        (
            "1".into(),
            "invalid type: integer `1`, expected an object with dtype, shape and data_offsets at \
             line 1 column 6",
        ),
        (
            r#"["U8",[],[0,1]]"#.into(),
            "invalid type: sequence, expected an object with dtype, shape and data_offsets at \
             line 1 column 5",
        ),
        ("{}".into(), "missing field `dtype` at line 1 column 7"),
        (format!("{{{dtype}}}"), "missing field `shape` at line 1 column 19"),
        (format!(r#"{{{dtype},"shape":[]}}"#), "missing field `data_offsets` at line 1 column 30"),
        (format!("{{{dtype},{dtype}}}"), "duplicate field `dtype` at line 1 column 32"),
        (
            r#"{"dtype":"F33"}"#.into(),
            "dtype: \"F33\" is not a known element type at line 1 column 19",
        ),
        (
            r#"{"dtype":7}"#.into(),
            "dtype: invalid type: integer `7`, expected a string at line 1 column 15",
        ),
        (
            r#"{"shape":[-1]}"#.into(),
            "shape: invalid value: integer `-1`, expected usize at line 1 column 17",
        ),
        (
            r#"{"shape":[2.0]}"#.into(),
            "shape: invalid type: floating point `2.0`, expected usize at line 1 column 18",
        ),
        (
            r#"{"shape":[18446744073709551616]}"#.into(),
            "shape: invalid type: floating point `1.8446744073709552e+19`, expected usize at \
             line 1 column 35",
        ),
        (r#"{"shape":[1e999]}"#.into(), "shape: number out of range at line 1 column 20"),
        (
            r#"{"data_offsets":[0]}"#.into(),
            "data_offsets: invalid length 1, expected an array of length 2 at line 1 column 24",
        ),
        (
            r#"{"data_offsets":[0,1,2]}"#.into(),
            "data_offsets: trailing characters at line 1 column 27",
        ),
        (
            format!(r#"{{"x":{}}}"#, "[".repeat(200)),
            "recursion limit exceeded at line 1 column 136",
        ),
        (r#"{"x":"\ud800"}"#.into(), "unexpected end of hex escape at line 1 column 18"),
    ] {
        let expected = format!("the header is invalid: tensor \"a\": {expected}");
        assert_eq!(fact_of_text(file_of(a(&entry).as_bytes(), 1)), expected);
    }
}

#[test]
fn wrong_layouts() {
    let u8s = |name: &str, begin: u64, end: u64| {
        entry(name, "U8", &format!("[{}]", end.saturating_sub(begin)), begin, end)
    };
    let big = u64::MAX;
    for (entries, data_bytes, expected) in [
        (
            vec![entry("a", "F32", "[2, 3]", 0, 20)],
            20,
            "tensor \"a\" has shape [2, 3] of F32, which is 24 bytes, but data_offsets [0, 20] \
             give 20 bytes",
        ),
        (
            vec![entry("a", "U8", "[]", 0, 0)],
            0,
            "tensor \"a\" has shape [] of U8, which is 1 byte, but data_offsets [0, 0] give 0 \
             bytes",
        ),
        (
            vec![entry("a", "F4", "[3]", 0, 2)],
            2,
            "tensor \"a\" has shape [3] of F4, which is 12 bits, not a whole number of bytes",
        ),
        (
            vec![entry("a", "F6_E2M3", "[]", 0, 1)],
            1,
            "tensor \"a\" has shape [] of F6_E2M3, which is 6 bits, not a whole number of bytes",
        ),
        (
            vec![entry("a", "F32", "[4294967296, 4294967296]", 0, 0)],
            0,
            "tensor \"a\" has shape [4294967296, 4294967296] of F32, whose size does not fit 64 \
             bits",
        ),
        (
            vec![entry("a", "U8", "[9223372036854775807]", 0, 8)],
            8,
            "tensor \"a\" has shape [9223372036854775807] of U8, whose size does not fit 64 bits",
        ),
        (
            vec![u8s("a", 4, 2)],
            4,
            "tensor \"a\" has data_offsets [4, 2], which end before they begin",
        ),
        (
            vec![u8s("a", 2, 4)],
            4,
            "tensor \"a\", the first of the data, begins at byte 2 instead of 0",
        ),
        (
            vec![u8s("b", 6, 8), u8s("a", 0, 4)],
            8,
            "tensor \"b\" begins at byte 6 of the data, but tensor \"a\" before it ends at 4: \
             there is a hole",
        ),
        (
            vec![u8s("b", 2, 8), u8s("a", 0, 4)],
            8,
            "tensor \"b\" begins at byte 2 of the data, but tensor \"a\" before it ends at 4: \
             they overlap",
        ),
        (
            vec![u8s("a", 0, 4)],
            3,
            "the file is truncated: the header describes 4 bytes of tensor data, the file has 3 \
             bytes: 1 byte missing; was its download finished?",
        ),
        (
            vec![u8s("a", 0, 4)],
            6,
            "the header describes 4 bytes of tensor data, the file has 6 bytes: 2 bytes too \
             many",
        ),
        (
            vec![],
            1,
            "the header describes 0 bytes of tensor data, the file has 1 byte: 1 byte too many",
        ),
        (
            vec![u8s("a", 0, (3 << 20) + 5)],
            1 << 20,
            "the file is truncated: the header describes 3.00 MiB (3145733 bytes) of tensor data, \
             the file has 1 MiB: 2.00 MiB (2097157 bytes) missing; was its download finished?",
        ),
        (vec![u8s("a", 0, 1), u8s("a", 1, 2)], 2, "tensor \"a\" occurs twice in the header"),
        (
            vec![u8s("a", 0, big)],
            1,
            "tensor \"a\" has shape [18446744073709551615] of U8, whose size does not fit 64 bits",
        ),
    ] {
        let header = format!("{{{}}}", entries.join(","));
        assert_eq!(fact_of_text(file_of(header.as_bytes(), data_bytes)), expected);
    }
}

#[test]
fn what_is_odd_but_valid() {
    for (header, data_bytes) in [
        ("{}".to_owned(), 0),
        ("{} \n ".into(), 0),
        (r#"{"__metadata__":null}"#.into(), 0),
        (r#"{"__metadata__":{}}"#.into(), 0),
        (a(r#"{"data_offsets":[0,1],"x":{"y":[1,-2,1.5,null,"z"]},"shape":[],"dtype":"U8"}"#), 1),
        (format!("{{{}}}", entry("", "F4", "[2]", 0, 1)), 1),
        (format!("{{{}}}", entry("\\u00e9\\n", "F32", "[0, 18446744073709551615]", 0, 0)), 0),
        (format!("{{{},{}}}", entry("z", "U8", "[0]", 0, 0), entry("y", "F32", "[]", 0, 4)), 4),
    ] {
        let bytes = file_of(header.as_bytes(), data_bytes);
        SafeTensors::deserialize(&bytes).unwrap();
        open_bytes(bytes).unwrap();
    }
}

#[test]
fn nothing_is_allocated_for_a_length_that_the_file_does_not_have() {
    let header = 100_000_000u64.to_le_bytes().to_vec();
    let error = open_memory(MemorySource::new("m", header).claiming(100_000_007)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidCheckpoint);
}

#[test]
fn a_source_that_shrinks_has_changed() {
    let memory = MemorySource::new("m", file_of(b"{}", 0)[..9].to_vec()).claiming(10);
    let error = open_memory(memory).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert_eq!(error.to_string(), "m: the file was truncated while its header was read");
}

#[test]
fn names_of_any_length_make_short_messages() {
    let header = format!("{{{}}}", entry(&"x".repeat(1 << 20), "U8", "[]", 1, 2));
    assert!(fact_of_text(file_of(header.as_bytes(), 2)).len() < 400);
}

/// A file whose header has 108 MB, as trainings with long metadata write them, was "not a safetensors
/// file".
#[test]
fn a_header_that_is_too_long_is_told_apart_from_no_header() {
    let header = [&100_000_001_u64.to_le_bytes()[..], b"{\"__metadata__\":{"].concat();
    let told = fact(header);
    assert!(told.starts_with("the header has 100000001 bytes, more than the limit of 100 MB"));
    assert!(
        told.ends_with("write the tensors to several files, or shorten __metadata__"),
        "{told}"
    );
    let other = [&100_000_001_u64.to_le_bytes()[..], b"{ no header"].concat();
    assert!(fact(other).ends_with("it is not a safetensors file"));
}

/// A length of 2^63 was said to be too much metadata, to be written to several files.
#[test]
fn a_length_that_no_header_has_is_damage_or_another_format() {
    let header = [&(1_u64 << 63).to_le_bytes()[..], b"{\"__metadata__\":{"].concat();
    let told = fact(header);
    assert!(told.starts_with("the first 8 bytes give a header of 8192 PiB"), "{told}");
    assert!(told.contains("they are damaged, or the file has another format"), "{told}");
    assert!(!told.contains("shorten"), "{told}");
}
