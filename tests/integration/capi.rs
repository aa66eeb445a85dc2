//! The C library from C: programs in `tests/capi`, compiled against the headers and linked with
//! `libringload.so`, on real files, bad arguments, threads, forks and an object store.

use crate::common::c_library::compile_c;
use crate::common::moto::Moto;
use crate::common::stand_in::stand_in;
use crate::common::{Expected, directory, in_time, write};
use ringload::Dtype;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Compiles `tests/capi/NAME.c` into `directory`.
fn compile(name: &str, directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/capi/{name}.c"));
    let program = directory.join(name);
    compile_c(&source, &program);
    program
}

/// Runs `tests/capi/NAME.c` and gives what it printed.
#[track_caller]
fn run(name: &str, arguments: &[&str]) -> String {
    let place = directory();
    let mut command = Command::new(compile(name, place.path()));
    command.args(arguments);
    if name == "gpu" {
        command.env("LD_LIBRARY_PATH", stand_in());
    }
    for (name, _) in std::env::vars_os() {
        let named = |prefix| name.to_str().is_some_and(|name| name.starts_with(prefix));
        if ["AWS_", "RUNAI_", "RINGLOAD_"].into_iter().any(named) {
            command.env_remove(name);
        }
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true").stdin(Stdio::null());
    let Output { status, stdout, stderr } = in_time(name, move || command.output().unwrap());
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn tensors() -> Vec<Expected> {
    vec![
        Expected::new("first", Dtype::F32, &[300, 10_000], 1),
        Expected::new("second", Dtype::BF16, &[77], 2),
        Expected::new("empty", Dtype::I64, &[0, 3], 3),
    ]
}

#[test]
fn run_ai_s_functions_serve_files_threads_and_lies() {
    let place = directory();
    let model = place.path().join("model.safetensors");
    write(&model, &tensors(), None);
    assert_eq!(run("runai", &[model.to_str().unwrap()]), "ok\n");
}

/// The loaders of the C library are those of programs whose users set variables, unlike `Loader::new`.
#[test]
fn variables_set_the_options_of_a_loader_of_the_c_library() {
    let place = directory();
    let model = place.path().join("model.safetensors");
    write(&model, &tensors(), None);
    let mut command = Command::new(compile("native", place.path()));
    let output = command.arg(model).env("RINGLOAD_MEMORY_LIMIT", "lots").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("RINGLOAD_MEMORY_LIMIT"), "{output:?}");
}

#[test]
fn own_functions_stream_tensors_and_read_ranges() {
    let place = directory();
    let model = place.path().join("model.safetensors");
    let tensors = tensors();
    write(&model, &tensors, None);
    let printed = run("native", &[model.to_str().unwrap()]);
    let mut lines: Vec<_> = printed.lines().collect();
    lines.sort_unstable();
    let line = |tensor: &Expected| {
        let sum: u64 = tensor.bytes.iter().map(|&byte| u64::from(byte)).sum();
        format!("{} {} {:?} {sum}", tensor.name, tensor.dtype, tensor.shape)
    };
    let mut expected: Vec<_> = tensors.iter().map(line).collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn objects_are_read_with_the_credentials_that_were_set() {
    let files = directory();
    let name = "m/a.safetensors";
    std::fs::create_dir_all(files.path().join("m/deep")).unwrap();
    write(&files.path().join(name), &tensors()[1..], None);
    std::fs::write(files.path().join("m/deep/b.safetensors"), "b").unwrap();
    std::fs::write(files.path().join("m/config.json"), "{}").unwrap();
    let Some(moto) = Moto::start("models", files.path()) else { return };
    let (uri, url) = (format!("s3://models/{name}"), moto.url());
    let by = |key: &str, secret: &str| {
        let arguments = [uri.as_str(), "s3://models/m", url.as_str(), moto.key(key), secret];
        run("remote", &arguments)
    };
    let bytes = std::fs::read(files.path().join(name)).unwrap();
    let mut expected: String = bytes[..64].iter().map(|byte| format!("{byte:02x}")).collect();
    let a = format!("{uri} {}", bytes.len());
    for line in [a.as_str(), a.as_str(), "s3://models/m/deep/b.safetensors 1", ""] {
        expected = format!("{expected}\n{line}");
    }
    assert_eq!(by("key", moto.key("secret")), expected);
    let denied = by("key", "wrong");
    assert!(denied.starts_with("2 ") && denied.contains(&uri), "{denied}");
}

#[test]
fn ranges_go_to_memory_of_gpus() {
    let place = directory();
    let model = place.path().join("model.safetensors");
    write(&model, &tensors(), None);
    assert_eq!(run("gpu", &[model.to_str().unwrap()]), "ok\n");
}

#[test]
fn headers_are_of_strict_c_and_of_cpp() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dialects = [("cc", "c", "-std=c99"), ("c++", "c++", "-std=c++11")];
    for (compiler, language, dialect) in dialects {
        for header in ["ringload.h", "runai_streamer.h"] {
            let mut command = Command::new(compiler);
            command.args([dialect, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]);
            command.args(["-x", language]).arg(root.join("src/capi").join(header));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
