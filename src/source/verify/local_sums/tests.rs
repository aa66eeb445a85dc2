//! Files of checksums as they are found in the field, and those that are not.

use super::*;
use crate::source::verify::Checksum;
use std::fs;
use std::os::unix::fs::symlink;

const DIGEST: [u8; 32] = [0xAB; 32];
const OTHER: [u8; 32] = [0x12; 32];

fn digits(digest: [u8; 32]) -> String {
    hex::encode(&digest)
}

/// Whether `text` has `DIGEST` for the file `name`, as `SHA256SUMS` and as `NAME.sha256`.
fn found(text: &str, name: &str) -> [Option<[u8; 32]>; 2] {
    let file = SumsFile(text.as_bytes());
    [file.of(name.as_bytes()).unwrap(), file.of_one(name.as_bytes()).unwrap()]
}

#[test]
fn lines_of_sha256sum_are_read_in_all_of_its_forms() {
    let (digest, other) = (digits(DIGEST), digits(OTHER));
    let both = [Some(DIGEST); 2];
    assert_eq!(found(&format!("{other}  a\n{digest}  m.st\n"), "m.st"), both);
    assert_eq!(found(&format!("{digest} *m.st\r\n{other}  b\r\n"), "m.st"), both);
    assert_eq!(found(&format!("# made today\n\n{digest}  ./m.st"), "m.st"), both);
    assert_eq!(found(&format!("SHA256 (m.st) = {}\n", digest.to_uppercase()), "m.st"), both);
    assert_eq!(found(&format!("SHA256 (a) = b) = {digest}\n"), "a) = b"), both);
    assert_eq!(found(&format!("\\{digest}  a\\\\b\\nc\\rd\n"), "a\\b\nc\rd"), both);
    assert_eq!(found(&format!("\\SHA256 (a\\\\b) = {digest}\n"), "a\\b"), both);
    assert_eq!(found(&format!("{digest}  a b  c\n"), "a b  c"), both);
    // A backslash in a name that is not escaped stands for itself.
    assert_eq!(found(&format!("{digest}  a\\nb\n"), "a\\nb"), both);
}

#[test]
fn a_digest_of_another_file_or_algorithm_is_not_taken() {
    let digest = digits(DIGEST);
    let none = [None; 2];
    for line in [
        format!("{digest}  xm.st"),
        format!("{digest} m.st"),
        format!("{}  m.st", &digest[1..]),
        format!("{digest}0  m.st"),
        format!("SHA512 (m.st) = {digest}"),
        format!("SHA256 (m.st) = {}", &digest[1..]),
        format!("\\{digest}  m\\tst"),
        "SHA256 (".to_owned(),
        "é".repeat(40),
    ] {
        assert_eq!(found(&line, "m.st"), none, "{line}");
    }
    // A file of this name in another directory is another file, unless only one is described.
    assert_eq!(found(&format!("{digest}  build/m.st"), "m.st"), [None, Some(DIGEST)]);
    assert_eq!(found(&format!(" {digest}\n"), "m.st"), [None, Some(DIGEST)]);
    let two = format!("{digest}  m.st\n{}  m.st\n", digits(OTHER));
    assert!(SumsFile(two.as_bytes()).of(b"m.st").is_err());
    assert!(SumsFile(two.as_bytes()).of_one(b"m.st").is_err());
    assert_eq!(found(&format!("{digest}  m.st\n{digest} *m.st\n"), "m.st"), [Some(DIGEST); 2]);
}

fn origin(path: &Path) -> Option<String> {
    let found = find(path).unwrap()?;
    assert_eq!(found.checksum, Checksum::Sha256(DIGEST));
    Some(found.origin.to_string())
}

#[test]
fn the_closest_checksum_counts() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("m.st"), "").unwrap();
    assert_eq!(origin(&at("m.st")), None);
    fs::write(at("SHA256SUMS"), format!("{}  m.st\n", digits(DIGEST))).unwrap();
    assert_eq!(origin(&at("m.st")), Some(at("SHA256SUMS").display().to_string()));
    assert_eq!(origin(&at("n.st")), None);
    fs::write(at("SHA256SUMS"), format!("{}  m.st\n", digits(OTHER))).unwrap();
    fs::write(at("m.st.sha256"), format!("{}\n", digits(DIGEST))).unwrap();
    assert_eq!(origin(&at("m.st")), Some(at("m.st.sha256").display().to_string()));
    // The file has a checksum of its own, which cannot be used: no other one is taken for it.
    fs::write(at("m.st.sha256"), format!("{}  other.st\n", digits(DIGEST))).unwrap();
    let refused = find(&at("m.st")).unwrap_err();
    assert!(refused.to_string().contains("m.st.sha256 has none for it"), "{refused}");
}

#[test]
fn files_of_the_hubs_cache_are_compared_with_the_names_of_their_blobs() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("blobs")).unwrap();
    fs::create_dir_all(at("snapshots/abc")).unwrap();
    let sha1 = "ab".repeat(20);
    for (name, blob) in [("m.st", digits(DIGEST)), ("small.st", sha1)] {
        fs::write(at("blobs").join(&blob), "").unwrap();
        symlink(format!("../../blobs/{blob}"), at("snapshots/abc").join(name)).unwrap();
    }
    let origin_of_blob = Some("the name of its blob in the Hub's cache".to_owned());
    assert_eq!(origin(&at("snapshots/abc/m.st")), origin_of_blob);
    assert_eq!(origin(&at("blobs").join(digits(DIGEST))), origin_of_blob);
    assert_eq!(origin(&at("snapshots/abc/small.st")), None);
    // A name of 64 digits elsewhere says nothing about the file.
    fs::write(at(&digits(OTHER)), "").unwrap();
    assert_eq!(origin(&at(&digits(OTHER))), None);
}

/// A FIFO in place of a file of checksums once hung a load; it is refused at once.
#[test]
fn what_is_not_a_regular_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("m.st"), "").unwrap();
    for name in ["SHA256SUMS", "m.st.sha256"] {
        nix::unistd::mkfifo(&at(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refused = find(&at("m.st")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("is a FIFO"), "{refused}");
        fs::remove_file(at(name)).unwrap();
        symlink("/dev/zero", at(name)).unwrap();
        assert!(find(&at("m.st")).unwrap_err().to_string().contains("is a device"));
        fs::remove_file(at(name)).unwrap();
    }
}

#[test]
fn any_bytes_are_digests_or_none() {
    let digest = digits(DIGEST);
    let examples = [
        format!("{digest}  m.st\n{digest} *./a b\r\n"),
        format!("SHA256 (m.st) = {digest}\n\\{digest}  a\\\\b\\nm.st\n"),
        format!(" {digest}\n"),
    ];
    let examples: Vec<&str> = examples.iter().map(String::as_str).collect();
    crate::test_fuzz::never_panics("SHA256SUMS", &examples, |text| {
        let _ = SumsFile(text).of(b"m.st");
        let _ = SumsFile(text).of_one(b"m.st");
    });
}
