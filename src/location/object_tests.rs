//! URIs of objects: their parts, invalid ones, and that messages do not repeat secrets.

use super::*;
use crate::error::ErrorKind;
use crate::location::Location;

fn parse(text: &str) -> ObjectUri {
    match Location::parse(text) {
        Ok(Location::Object(uri)) => uri,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn containers_and_keys_are_as_written() {
    for (text, container, key) in [
        ("http://host", "host", ""),
        ("http://host/", "host", ""),
        (
            "HTTPS://u:p%40@Host:8443/a%20b/c?d=/e&f=%2F#g?h",
            "u:p%40@Host:8443",
            "a%20b/c?d=/e&f=%2F",
        ),
        ("http://u@p@host/a", "u@p@host", "a"),
        ("http://[::1]:80?a", "[::1]:80", "?a"),
        ("http://host#x/y", "host", ""),
        ("http://host//a", "host", "/a"),
        ("s3://bucket", "bucket", ""),
        ("s3://my_bucket.x-1/a b%20c?*#\u{e9}", "my_bucket.x-1", "a b%20c?*#\u{e9}"),
        ("gs://bucket//a/", "bucket", "/a/"),
        ("az://$root/a", "$root", "a"),
        ("hf://o/r", "o/r", ""),
        ("hf://gpt2", "gpt2", ""),
        ("hf://gpt2/", "gpt2", ""),
        ("hf://gpt2@main/a/b", "gpt2@main", "a/b"),
        ("hf://o/r/a@b/c", "o/r", "a@b/c"),
        ("hf://o/r@main", "o/r@main", ""),
        ("hf://o/r@v1.0/a/b%2Fc", "o/r@v1.0", "a/b%2Fc"),
        ("hf://o/r@a%2fb/c", "o/r@a%2Fb", "c"),
        ("hf://datasets/o/r@refs/pr/7/c/d", "datasets/o/r@refs%2Fpr%2F7", "c/d"),
        ("hf://spaces/o/r@refs/convert/parquet", "spaces/o/r@refs%2Fconvert%2Fparquet", ""),
        ("anyscale://m.safetensors", "", "m.safetensors"),
        ("anyscale:///a/b", "", "a/b"),
        ("anyscale://", "", ""),
    ] {
        let uri = parse(text);
        assert_eq!((uri.container(), uri.key()), (container, key), "{text}");
    }
}

#[test]
fn errors_name_the_expected_form_and_do_not_repeat_the_input() {
    let secrets = ["http://user:s3cret@", "https://user:s3cret@host:99999/", "http://h/s3cret x"];
    for text in secrets.into_iter().chain([
        "http://",
        "http:///path?s3cret",
        "http://:80/",
        "http://host:/",
        "http://host:0/",
        "http://ho st/s3cret",
        "http://user:s3cret@ho\\st/",
        "http://[::1/",
        "http://h/a\nb",
        "s3://",
        "s3:///key",
        "s3://key:s3cret@bucket/a",
        "s3://buc ket/a",
        "s3://$root/a",
        "gs://b\u{e9}/a",
        "az://container@account.s3cret/a",
        "hf://",
        "hf://datasets/o",
        "hf:///r",
        "hf://o//a",
        "hf://o/../x",
        "hf://o/r@",
        "hf://o/r@/a",
        "hf://o/r@..%2Fx/a",
        "hf://o/r@a%2F%2Fb/a",
        "hf://o/r@a b/c",
        "hf://user:s3cret@o/r",
    ]) {
        let error = Location::parse(text).unwrap_err();
        let (sentence, scheme) = (error.to_string(), text.split("://").next().unwrap());
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(sentence.contains(&format!("write {scheme}://")), "{text}: {sentence}");
        assert!(!format!("{error:?}").contains("s3cret"), "{text}: {error:?}");
    }
}

#[test]
fn displayed_uris_have_no_secret_and_parse_to_the_same_uri() {
    let secret = parse("https://user:s3cret@host/a?X-Signature=s3cret");
    for shown in [secret.to_string(), format!("{secret:?}"), format!("{:?}", secret.join("b"))] {
        assert!(!shown.contains("s3cret") && !shown.contains("user"), "{shown}");
    }
    assert_eq!(secret.to_string(), "https://host/a?...");
    for text in
        ["s3://b/a?b@c", "hf://datasets/o/r@a%2Fb/c", "anyscale://a/b", "http://h/a%20b", "az://c/"]
    {
        assert_eq!(parse(text).to_string(), text);
        assert_eq!(parse(&parse(text).to_string()), parse(text));
    }
}

#[test]
fn directories_and_neighbours_are_found() {
    let keys =
        |uri: ObjectUri| [uri.as_directory(), uri.parent(), uri.join("x/y z")].map(|u| u.key);
    assert_eq!(keys(parse("s3://b/a/b?c")), ["a/b?c/", "a/", "a/x/y z"]);
    assert_eq!(keys(parse("s3://b/a/")), ["a/", "a/", "a/x/y z"]);
    assert_eq!(keys(parse("s3://b")), ["", "", "x/y z"]);
    assert_eq!(keys(parse("http://h/a/b?c/d")), ["a/b/?c/d", "a/?c/d", "a/x/y%20z?c/d"]);
    assert_eq!(keys(parse("http://h?c")), ["?c", "?c", "x/y%20z?c"]);
    assert_eq!(parse("http://h/a/b?c/d").name(), "b");
    assert!(parse("http://h/a/?b").is_directory() && parse("gs://b").is_directory());
    assert!(!parse("gs://b/a/?b").is_directory());
}
