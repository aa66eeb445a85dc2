//! The headers of the C library are what its source says. To write them anew:
//! `RINGLOAD_TEST_WRITE=1 cargo test --test capi_headers`.

#![allow(clippy::unwrap_used)]

use cbindgen::{Builder, Config, EnumConfig, ExportConfig, Language, RenameRule, Style};
use std::path::{Path, PathBuf};
use std::{env, fs};

const NATIVE: &str = "\
/* ringload: loads safetensors checkpoints into memory.
 *
 * Link with -lringload (`cargo build --release --features capi` makes it). Functions return a
 * RingloadStatus; ringload_error() says more. Every function may be called from any thread, several at
 * once. After a fork, the child makes its own loaders.
 *
 * Written by `RINGLOAD_TEST_WRITE=1 cargo test --test capi_headers`; do not edit.
 */";

const RUNAI: &str = "\
/* The functions of Run:ai Model Streamer's libstreamer.so, as of 0.17, in libringload.so.
 *
 * Functions return a RunaiFileStreamerResponse; runai_file_streamer_response_str() says more. Every
 * function may be called from any thread, several at once. After a fork, the child starts its own
 * streamers.
 *
 * Written by `RINGLOAD_TEST_WRITE=1 cargo test --test capi_headers`; do not edit.
 */";

/// Programs written for Run:ai's header know the codes under this name, too.
const RUNAI_CODES: [&str; 2] = [
    "} RunaiFileStreamerResponse;\n",
    "} RunaiFileStreamerResponse;\ntypedef RunaiFileStreamerResponse RunaiFileStreamerResponseCode;\n",
];

/// `codes` are what functions return, as numbers.
fn config(head: &str, guard: &str, codes: &str) -> Config {
    Config {
        language: Language::C,
        style: Style::Both,
        header: Some(head.to_owned()),
        include_guard: Some(guard.to_owned()),
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        cpp_compat: true,
        usize_is_size_t: true,
        line_length: 100,
        enumeration: EnumConfig {
            rename_variants: RenameRule::QualifiedScreamingSnakeCase,
            ..EnumConfig::default()
        },
        export: ExportConfig { include: vec![codes.to_owned()], ..ExportConfig::default() },
        ..Config::default()
    }
}

/// What the header `name` in `src/capi` is to be.
fn generated(config: Config, sources: &[&str]) -> String {
    let builder = sources.iter().fold(Builder::new().with_config(config), |builder, source| {
        builder.with_src(capi().join(source))
    });
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    let text = String::from_utf8(text).unwrap();
    text.replace(" * # Safety\n * ", " * Has to hold: ")
        .replace("Has to hold:  * ", "Has to hold: ")
}

fn capi() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/capi")
}

#[track_caller]
fn assert_current(name: &str, expected: &str) {
    let path = capi().join(name);
    if env::var_os("RINGLOAD_TEST_WRITE").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let is = fs::read_to_string(&path).unwrap_or_default();
    assert!(is == expected, "{name} is not current; RINGLOAD_TEST_WRITE=1 writes it anew");
}

#[test]
fn ringload_h_is_current() {
    let config = config(NATIVE, "RINGLOAD_H", "RingloadStatus");
    let sources = ["native/mod.rs", "native/range.rs", "native/status.rs", "native/tensor.rs"];
    assert_current("ringload.h", &generated(config, &sources));
}

#[test]
fn runai_streamer_h_is_current() {
    let config = config(RUNAI, "RINGLOAD_RUNAI_STREAMER_H", "RunaiFileStreamerResponse");
    let sources = ["runai/mod.rs", "runai/code.rs", "runai/listing.rs"];
    let text = generated(config, &sources);
    let [codes, with_other_name] = RUNAI_CODES;
    assert!(text.contains(codes));
    assert_current("runai_streamer.h", &text.replace(codes, with_other_name));
}
