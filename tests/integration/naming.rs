//! What users write to name a checkpoint, and what they are told where that does not work: on web
//! servers, which list no files, with options that contradict the named files, and for AWS profiles.

use crate::common::command::{digest_lines, ringload, run};
use crate::common::fault_server::{FaultServer, Reply};
use crate::common::model::Model;
use crate::common::nginx::Nginx;
use crate::common::{Expected, directory, write, write_index};
use crate::web::{certify, start_tls};
use std::fs;

/// Two tensors in a file each, and a variant of the first.
fn put(root: &std::path::Path) {
    fs::create_dir_all(root.join("m")).unwrap();
    for (name, seed) in [("model", 1), ("other", 2), ("model.fp16", 3)] {
        let tensors = [Expected::of_bytes(format!("t{seed}"), 100, seed)];
        write(&root.join(format!("m/{name}.safetensors")), &tensors, None);
    }
}

/// `--all-files` and patterns silently did nothing on a web server, and a directory without its slash
/// was "404 Not Found; check the location".
#[test]
fn a_web_server_that_lists_nothing_is_named_as_the_reason() {
    let Some(nginx) = Nginx::start("", put) else { return };
    for (target, options, part) in [
        ("m/", &["--all-files"][..], "does not list its files, so --all-files cannot find them"),
        ("m/*.safetensors", &[], "patterns do not work there"),
        ("m/model-[12].safetensors", &[], "patterns do not work there"),
        ("none", &[], "the URL of a directory ends in a slash"),
        ("m", &[], "the URL of a directory ends in a slash"),
    ] {
        let told = run(ringload().args(["load", &nginx.url(target)]).args(options)).failure();
        assert!(told.contains(part), "{target}: {told}");
    }
    let told = run(ringload().args(["load", &nginx.url("m/none.safetensors")])).failure();
    assert!(!told.contains("slash"), "{told}");
    run(ringload().args(["load", &nginx.url("m/")])).quiet_success();
}

/// `--variant` with a file that the user named, and `--all-files` with an index, silently had no effect.
#[test]
fn options_that_contradict_the_named_files_are_refused() {
    let directory = directory();
    put(directory.path());
    let at = |name: &str| directory.path().join("m").join(name);
    let load =
        |name: &str, options: &[&str]| run(ringload().arg("load").arg(at(name)).args(options));
    load("model.fp16.safetensors", &["--variant", "fp16"]).quiet_success();
    load("", &["--variant", "fp16"]).quiet_success();
    for (name, options, part) in [
        ("model.safetensors", &["--variant", "fp16"][..], "--variant chooses among the files of a"),
        ("*.safetensors", &["--variant", "fp16"], "is a file that is not of the variant \"fp16\""),
    ] {
        let told = load(name, options).failure();
        assert!(told.contains(part), "{name}: {told}");
    }
    // Two options that contradict each other are wrong usage of the command.
    let told = load("", &["--variant", "fp16", "--all-files"]).wrong_usage();
    assert!(told.contains("'--variant <NAME>' cannot be used with '--all-files'"), "{told}");
    let both = ringload::Loader::new().variant("fp16").all_files(true);
    assert!(both.load(at("")).unwrap_err().to_string().contains("give one of them"));
    let index = at("model.safetensors.index.json");
    let tensors = [Expected::of_bytes("t1", 100, 1)];
    write_index(&index, [("model.safetensors", &tensors[..])]);
    let told = load("model.safetensors.index.json", &["--all-files"]).failure();
    assert!(told.contains("is an index; leave --all-files out"), "{told}");
    // So with the other stores.
    let server = FaultServer::start(Model::small().file, |_, request| request.right());
    let told = run(ringload().args(["load", &server.url(), "--variant", "fp16"])).failure();
    assert!(told.contains("--variant chooses among the files of a directory"), "{told}");
}

/// The message said three times that a file does not exist.
#[test]
fn a_missing_shard_is_reported_once() {
    let directory = directory();
    let index = directory.path().join("model.safetensors.index.json");
    write_index(&index, [("one.safetensors", &[Expected::of_bytes("t", 10, 1)][..])]);
    let told = run(ringload().arg("load").arg(&index)).failure();
    assert!(told.contains("names the shard \"one.safetensors\", which does not exist"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

/// Of `--all-files`, the remedy was to name only files that belong to one checkpoint, which the user
/// cannot do with a directory.
#[test]
fn a_tensor_that_all_files_give_twice_has_a_remedy() {
    let directory = directory();
    for name in ["model", "consolidated"] {
        let path = directory.path().join(format!("{name}.safetensors"));
        write(&path, &[Expected::of_bytes("t", 10, 1)], None);
    }
    let told = run(ringload().arg("load").arg(directory.path()).arg("--all-files")).failure();
    assert!(told.contains("; leave --all-files out, so that one checkpoint"), "{told}");
}

/// A header of 108 MB was "not a safetensors file".
#[test]
fn a_header_that_is_too_long_is_told_from_the_first_bytes_of_an_object() {
    let mut start = 108_000_000_u64.to_le_bytes().to_vec();
    start.extend(br#"{"__metadata__":{"a":""#);
    start.resize(64 << 10, b'x');
    let server = FaultServer::start(Vec::new(), move |_, _| {
        let range = "bytes 0-65535/200000000";
        Reply::new(206).with("Content-Range", range).with("ETag", "\"one\"").body(&start)
    });
    let told = run(ringload().args(["load", &server.url()])).failure();
    assert!(
        told.contains("the header has 108000000 bytes, more than the limit of 100 MB"),
        "{told}"
    );
    assert_eq!(server.seen().len(), 1, "the header was requested");
}

/// `ca_bundle` and `addressing_style` of the profile were ignored, so that a store with an authority of
/// its own could be read by the command line of AWS and not here.
#[test]
fn the_profile_names_the_authority_and_the_style_of_a_store() {
    let certificates = directory();
    if !certify(certificates.path()) {
        return;
    }
    let Some(nginx) = start_tls(certificates.path(), "TLSv1.3") else { return };
    let tensors = [Expected::of_bytes("t", 1000, 5)];
    fs::create_dir(nginx.root().join("bucket")).unwrap();
    write(&nginx.root().join("bucket/x.safetensors"), &tensors, None);
    let endpoint = nginx.url("").replace("http:", "https:");
    let load = |profile: &str| {
        let config = certificates.path().join("config");
        fs::write(&config, format!("[default]\n{profile}\n")).unwrap();
        let mut command = ringload();
        command.env_clear().env("AWS_CONFIG_FILE", &config).env("AWS_NO_SIGN_REQUEST", "true");
        command.args(["load", "s3://bucket/x.safetensors", "--digest", "--endpoint", &endpoint]);
        run(&mut command)
    };
    let bundle = format!("ca_bundle = {}", certificates.path().join("ca.pem").display());
    assert_eq!(load(&bundle).quiet_success(), digest_lines(&tensors));
    assert!(load("").failure().contains("is not trusted"));
    let missing = load("ca_bundle = /none.pem").failure();
    assert!(missing.contains("the ca_bundle of the AWS profile cannot be used"), "{missing}");
    // `bucket.127.0.0.1` is no name that resolves.
    let virtual_host = load(&format!("{bundle}\ns3 =\n  addressing_style = virtual")).failure();
    assert!(virtual_host.contains("bucket.127.0.0.1"), "{virtual_host}");
    let style = load(&format!("{bundle}\ns3 =\n  addressing_style = dns")).failure();
    assert!(style.contains("write auto, path or virtual"), "{style}");
}

/// The words of the store were repeated, and the remedy was about credentials.
#[test]
fn refusals_have_the_remedy_that_the_store_asks_for() {
    let refuse = |code: &str, message: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        FaultServer::start(Vec::new(), move |_, _| Reply::new(403).body(body.as_bytes()))
    };
    let style = refuse("SecondLevelDomainForbidden", "Please use virtual hosted style");
    let mut command = ringload();
    command.env_clear().env("AWS_NO_SIGN_REQUEST", "true");
    let command =
        command.args(["load", "s3://bucket/x.safetensors", "--endpoint", &style.origin()]);
    let told = run(command).failure();
    assert!(told.contains("Please use virtual hosted style"), "{told}");
    assert!(told.contains("set addressing_style = virtual below s3 ="), "{told}");
    let expired = refuse("AccessDenied", "Request has expired");
    let told =
        run(ringload().args(["load", &format!("{}?X-Amz-Expires=1", expired.url())])).failure();
    assert!(told.contains("(AccessDenied: Request has expired); a signature is too old"), "{told}");
}
