//! Globs against those of the `globset` crate, which compiled them before. It takes six crates.

use super::*;
use proptest::prelude::*;

fn of_globset(glob: &str) -> Option<globset::GlobMatcher> {
    globset::Glob::new(glob).ok().map(|glob| glob.compile_matcher())
}

#[track_caller]
fn agree(glob: &str, names: &[&str]) {
    let (own, other) = (Glob::new(glob).ok(), of_globset(glob));
    assert_eq!(own.is_some(), other.is_some(), "{glob:?}");
    let (Some(own), Some(other)) = (own, other) else { return };
    for name in names {
        assert_eq!(own.is_match(name), other.is_match(name), "{glob:?} {name:?}");
    }
}

const NAMES: [&str; 16] = [
    "",
    "/",
    "a",
    "ab",
    "b",
    "a/b",
    "a/c/b",
    "/a",
    "a/",
    "a/c",
    "model.layers.5.mlp.up_proj.weight",
    "model.layers.15.weight",
    "{a,b}",
    "a,b",
    "]",
    "a\nb",
];

#[test]
fn globs_match_as_they_did() {
    for glob in [
        "",
        "*",
        "?",
        "a*",
        "*b",
        "a?b",
        "[ab]",
        "[!ab]",
        "[^ab]",
        "[]]",
        "[!]]",
        "[a-c]*",
        "[a-]",
        "[-a]",
        "[a-b-c]",
        "{a,b}",
        "{a,b}*",
        "{,a}b",
        "{}",
        "{,}a",
        "a{b,{c,d}}",
        "a,b",
        r"\*",
        r"\{a,b\}",
        r"a\/b",
        "model.layers.[4-7].*",
        "model.layers.*.weight",
        "*.{up,down}_proj.*",
        "**",
        "**/b",
        "a/**",
        "a/**/b",
        "a**",
        "**a",
        "a/**b",
        "a**/b",
        "**/**/b",
        "a/**/**/b",
        "a/**/**",
        "{**/b,c}",
        "{a/**,b}",
        "/**",
        "/**/a",
        "a/***",
        "***",
        "**/**",
        "{a/**}/b",
        "a/{**,b}",
    ] {
        agree(glob, &NAMES);
    }
}

#[test]
fn what_is_no_glob_says_why() {
    for (glob, why) in [
        ("[", "a class has no closing bracket"),
        ("[]", "a class has no closing bracket"),
        ("[a-", "a class has no closing bracket"),
        ("[b-a]", "a range of a class ends before it begins"),
        ("{a", "an opening brace has no closing one"),
        ("a}", "a closing brace has no opening one"),
        (r"a\", "nothing follows the last backslash"),
    ] {
        assert!(of_globset(glob).is_none(), "{glob}");
        let error = Glob::new(glob).unwrap_err();
        assert_eq!(error.to_string(), format!("{glob:?} is not a valid glob"));
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), why);
    }
}

/// With backtracking this would take longer than the universe exists.
#[test]
fn no_glob_takes_long() {
    let glob = Glob::new(&"{a,aa,*a}".repeat(40)).unwrap();
    assert!(!glob.is_match("a".repeat(400) + "b"));
    assert!(glob.is_match("a".repeat(400)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 10 } else { 20_000 }))]

    #[test]
    fn any_glob_matches_as_it_did(glob in r"[ab/*?\[\]{},!\\-]{0,10}", name in "[ab/,-]{0,6}") {
        agree(&glob, &[&name]);
    }
}
