//! Manifests as text.

use super::{FileSums, Manifest, TensorSum, format};
use crate::checksum::{crc64_nvme, crc64_nvme_of_parts};
use proptest::prelude::*;

/// A file with a header of 16 bytes and tensors of these names and lengths.
fn file(name: &str, tensors: &[(String, u64)], sha256: bool) -> FileSums {
    let mut offset = 16;
    let mut sums = Vec::new();
    for (number, (tensor, bytes)) in tensors.iter().enumerate() {
        if sums.iter().any(|sum: &TensorSum| *sum.name == **tensor) {
            continue;
        }
        let crc = if *bytes == 0 { 0 } else { crc64_nvme(&[number as u8; 9]) };
        sums.push(TensorSum { name: tensor.as_str().into(), offset, bytes: *bytes, crc });
        offset += bytes;
    }
    let header_crc = crc64_nvme(b"header");
    let parts = sums.iter().map(|sum| (sum.crc, sum.bytes));
    let crc = crc64_nvme_of_parts(std::iter::once((header_crc, 16)).chain(parts));
    let sha256 = sha256.then_some([7; 32]);
    let name = name.to_owned();
    FileSums { name, bytes: offset, sha256, header_bytes: 16, header_crc, tensors: sums, crc }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Names hold any characters, and lengths are up to 2^60.
    #[test]
    fn a_manifest_is_read_as_it_was_written(
        tensors in proptest::collection::vec((any::<String>(), 0_u64..1 << 50), 0..9),
        name in "[^\0]{1,20}",
        sha256 in any::<bool>(),
    ) {
        let manifest = Manifest::new(vec![file(&name, &tensors, sha256), file("", &[], false)]);
        let named = Manifest::new(vec![file(&name, &tensors, sha256), file("b/c", &[], !sha256)]);
        prop_assert!(format::parse(manifest.to_string().as_bytes()).is_err(), "an empty name");
        prop_assert_eq!(format::parse(named.to_string().as_bytes()).unwrap(), named.files());
    }
}

/// A past fault: for `null`, the message named a type of Rust, `struct Head`.
#[test]
fn the_error_of_other_json_has_plain_words() {
    let files = |files: &str| {
        format!(r#"{{"format": "ringload-manifest", "version": 1, "files": [{files}]}}"#)
    };
    let (file, crc) = (r#"{"name": "m", "bytes": 1"#, r#""crc64nvme": "0000000000000000""#);
    let header = format!(r#"{file}, {crc}, "header": 7, "tensors": []}}"#);
    let tensor = format!(r#"{file}, {crc}, "header": {{"bytes": 1, {crc}}}, "tensors": [7]}}"#);
    for text in ["null", "[]", "7", &files("null"), &files("[]"), &files(&header), &files(&tensor)]
    {
        let told = format::parse(text.as_bytes()).unwrap_err();
        assert!(told.contains("JSON object") && !told.contains("struct"), "{text}: {told}");
    }
}

/// A digit that changed in a manifest is noticed when it is read, wherever the parts are all of the file.
#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let tensors = [("a".to_owned(), 100), ("b".to_owned(), 0), ("c".to_owned(), 7)];
    let right = file("m", &tensors, true);
    let refused = |change: fn(&mut FileSums)| {
        let mut file = right.clone();
        change(&mut file);
        format::parse(Manifest::new(vec![file]).to_string().as_bytes()).unwrap_err()
    };
    for change in [
        |file: &mut FileSums| file.crc ^= 1,
        |file: &mut FileSums| file.tensors[2].crc ^= 1 << 63,
        |file: &mut FileSums| file.header_crc ^= 1,
    ] {
        assert!(refused(change).contains("its checksum is not that of its parts"));
    }
    assert!(refused(|file| file.tensors[2].offset -= 1).contains("\"c\" overlaps"));
    assert!(refused(|file| file.tensors[0].offset = 15).contains("\"a\" overlaps"));
    assert!(refused(|file| file.tensors[2].bytes = u64::MAX).contains("\"c\" is too long"));
    assert!(refused(|file| file.tensors[1].crc = 1).contains("\"b\" has no bytes"));
    assert!(refused(|file| file.bytes -= 1).contains("its parts end at byte"));
    assert!(refused(|file| file.tensors[1].name = "a".into()).contains("\"a\" occurs twice"));
}

/// What is accepted is written as it was read.
#[test]
fn any_bytes_are_a_manifest_or_an_error() {
    let tensors = [("a".to_owned(), 100), ("\u{e9}\"\n".to_owned(), 0), ("c".to_owned(), 7)];
    let two = Manifest::new(vec![file("m", &tensors, true), file("sub/n", &tensors[..1], false)]);
    let examples = [two.to_string(), Manifest::new(Vec::new()).to_string()];
    let examples = examples.each_ref().map(String::as_str);
    crate::test_fuzz::never_panics("manifests", &examples, |bytes| match format::parse(bytes) {
        Ok(files) => {
            let again = Manifest::new(files.clone()).to_string();
            let mut sorted = files;
            sorted.sort_by(|a, b| a.name.cmp(&b.name));
            assert_eq!(format::parse(again.as_bytes()).unwrap(), sorted);
        }
        Err(why) => assert!(!why.contains("struct"), "{why}"),
    });
}
